"""Errors say what to do; settings come from file, environment and arguments, in that order, and secrets stay secret."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tidegate import errors
from tidegate.errors import ConfigurationError, RetryAfter, TidegateError
from tidegate.settings import load_settings


def test_every_error_is_in_one_tree_with_an_exit_code_that_is_not_success() -> None:
    """Scripts tell causes apart by exit code, apps by class; both need every error to belong."""
    found = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]

    assert len(found) > 10
    assert all(issubclass(item, TidegateError) and item.exit_code > 0 for item in found)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for name, item in vars(errors).items():
        if isinstance(item, type) and issubclass(item, TidegateError):
            assert name in errors.__doc__, name


def test_retry_after_survives_pickling() -> None:
    """Multiprocessing users raise it in children."""
    assert pickle.loads(pickle.dumps(RetryAfter(2.5, "busy"))).delay_s == 2.5


def test_environment_beats_file_and_arguments_beat_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text("processes = 3\nslots = 5\nlease_s = 7.0\n")
    monkeypatch.setenv("TIDEGATE_CONFIG", str(file))
    monkeypatch.setenv("TIDEGATE_SLOTS", "6")
    monkeypatch.setenv("TIDEGATE_LEASE_S", "8")

    settings = load_settings(lease_s=9.0)

    assert (settings.processes, settings.slots, settings.lease_s) == (3, 6, 9.0)


def test_nonsense_is_one_line_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_SLOTS", "none")

    with pytest.raises(ConfigurationError, match="TIDEGATE_SLOTS") as caught:
        load_settings()

    assert "\n" not in str(caught.value)


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt setting that is silently ignored is worse than an error."""
    file = tmp_path / "tidegate.toml"
    file.write_text("slotz = 5\n")
    monkeypatch.setenv("TIDEGATE_CONFIG", str(file))

    with pytest.raises(ConfigurationError, match="slotz"):
        load_settings()


def test_a_missing_or_broken_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_CONFIG", str(tmp_path / "nowhere.toml"))
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        load_settings()

    broken = tmp_path / "broken.toml"
    broken.write_text("slots = = 5")
    monkeypatch.setenv("TIDEGATE_CONFIG", str(broken))
    with pytest.raises(ConfigurationError, match=r"broken\.toml"):
        load_settings()


def test_a_password_is_never_shown() -> None:
    settings = load_settings(url="redis://:hunter2@localhost/0")

    assert "hunter2" not in repr(settings)
    assert settings.url is not None
    assert "hunter2" in settings.url.get_secret_value()
