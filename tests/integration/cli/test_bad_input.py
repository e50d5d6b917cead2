"""Wrong use: one clear line that says what to do, an exit code that tells the kind, and no traceback unless asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidegate.embedded import EmbeddedServer

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _modules(shop: Path) -> None:
    (shop / "broken.py").write_text("x = 1\nraise RuntimeError('no database')\n")
    (shop / "syntax.py").write_text("def f(:\n")
    (shop / "needs.py").write_text("import a_module_that_is_not_there\n")
    (shop / "items.txt").write_text("1\n2\n")
    (shop / "bad.ndjson").write_text("1\nnope\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("submit", "nowhere:task", "items.txt"), 2, "there is no module 'nowhere'"),
        (("submit", "needs:task", "items.txt"), 2, "'needs' needs 'a_module_that_is_not_there': install it"),
        (
            ("submit", "broken:task", "items.txt"),
            2,
            r"'broken' cannot be imported: RuntimeError: no database \(.*broken.py:2\)",
        ),
        (("submit", "syntax:task", "items.txt"), 2, r"'syntax' cannot be imported: SyntaxError: .*syntax.py:1"),
        (
            ("submit", "shop.py:double", "items.txt"),
            2,
            "is a file name: write it as Python imports it, for example shop:NAME",
        ),
        (("submit", "shop:doubel", "items.txt"), 2, "'shop:doubel' does not exist: name a task: shop:double"),
        (("submit", "shop:not_a_task", "items.txt"), 2, "is a int, not a task"),
        (("submit", "shop", "items.txt"), 2, "names a module: write MODULE:TASK"),
        (("submit", "shop:double", "missing.txt"), 2, "No such file"),
        (("submit", "shop:double", "items.dat"), 2, "add --format"),
        (("submit", "shop:double", "bad.ndjson"), 3, "line 2 of bad.ndjson is not JSON"),
        (("submit", "shop:double", "items.txt", "--batch-size", "0"), 2, "batch_size=0: use 1 to 100,000"),
        (("submit", "shop:double", "items.txt", "--batch-size", "many"), 2, "--batch-size.*valid integer"),
        (("submit", "shop:double"), 2, "Missing argument 'FILE'"),
        (("worker", "nowhere:gate"), 2, "there is no module 'nowhere'"),
        (("worker", "shop:not_a_task"), 2, "not a Tidegate app"),
        (("worker", "shop:gaet"), 2, "has no 'gaet': name one of: gate"),
        (("worker", "shop:gate", "--processes", "0"), 2, "--processes 0: Input should be greater than 0"),
        (("worker", "shop:gate", "--log-level", "loud"), 2, "--log-level LOUD"),
        (("jobs", "--limit", "0"), 2, "--limit.*greater than or equal to 1"),
        (("jobs", "--url", "http://example.org"), 2, "use redis://"),
        (("cancel", "no-such-job"), 4, "no job"),
        (("replay", "x", "--outcome", "bad"), 2, "--outcome bad: use one of failed, timed_out"),
        (("frobnicate",), 2, "No such command 'frobnicate'"),
        (("jobs", "--frobnicate"), 2, "No such option: --frobnicate"),
    ],
)
def test_wrong_use_is_one_clear_line(run: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    ran = run(*arguments)

    assert ran.code == code, ran.err
    assert ran.out == ""
    assert len(ran.err.strip().splitlines()) == 1
    assert ran.err.startswith("tidegate: ")
    assert "Traceback" not in ran.err
    assert re.search(message, ran.err), ran.err


def test_nothing_is_written_when_the_input_is_bad(run: Run) -> None:
    run("submit", "shop:double", "bad.ndjson")

    assert run("jobs", "--json").document == []


def test_no_server_at_the_address_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_URL", "redis://127.0.0.1:1/0")

    for arguments in (("jobs",), ("submit", "shop:double", "items.txt"), ("worker", "shop:gate"), ("doctor",)):
        ran = run(*arguments)
        assert ran.code == 4
        assert "no answer from the ledger at redis://127.0.0.1:1/0" in (ran.err or ran.out)
        assert "TIDEGATE_URL" in (ran.err or ran.out)


def test_a_wrong_password_says_so_and_is_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "valkey", port=0) as server:
        port = server.url.rpartition(":")[2]
        monkeypatch.setenv("TIDEGATE_URL", f"redis://:secretguess@127.0.0.1:{port}")
        for command in ("jobs", "doctor"):
            ran = run(command)
            shown = ran.out + ran.err
            assert ran.code == 4
            assert "refused these credentials" in shown
            assert "correct user and password in TIDEGATE_URL" in shown
            assert "secretguess" not in shown


def test_a_settings_file_that_is_wrong_says_where(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text("processes = 0\n")
    monkeypatch.setenv("TIDEGATE_CONFIG", str(file))
    assert "processes: Input should be greater than 0" in run("jobs").err
    file.write_text("processes = \n")
    assert str(file) in run("jobs").err
    monkeypatch.setenv("TIDEGATE_CONFIG", str(tmp_path / "missing.toml"))
    assert "which is not a file" in run("doctor").out


def test_a_traceback_is_shown_only_when_asked_for(shop: Path) -> None:
    command = [sys.executable, "-m", "tidegate", "submit", "broken:task", "items.txt"]

    quiet = subprocess.run(command, check=False, capture_output=True, text=True, cwd=shop)
    loud = subprocess.run([*command, "--traceback"], check=False, capture_output=True, text=True, cwd=shop)

    assert quiet.returncode == 2
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr
    assert "no database" in loud.stderr


def test_a_reader_that_stops_reading_is_no_error(shop: Path) -> None:
    """``tidegate --help | head -1``."""
    command = f"{sys.executable} -m tidegate jobs --json | true"
    ran = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True, cwd=shop)

    assert ran.stderr == ""
