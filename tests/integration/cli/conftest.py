"""Runs the command in this process: the same function as the installed one, with what it printed."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tidegate import cli


@dataclass(frozen=True)
class Ran:
    """Exit code, and what went to standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Ran:
        capfd.readouterr()
        code = cli.run(list(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
        return Ran(code, *capfd.readouterr())

    return run


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger_url: str) -> Iterator[Path]:
    """A folder with an app ``shop:gate``, which is the current one; TIDEGATE_URL names an empty server."""
    (tmp_path / "shop.py").write_text(
        textwrap.dedent(
            """
            from tidegate import Tidegate

            gate = Tidegate()

            @gate.task
            def double(number):
                return 2 * int(number)

            @gate.task
            def price(row):
                return float(row["price"]) * int(row["count"])

            @gate.task
            def add(one, two):
                return one + two

            not_a_task = 5
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_URL", ledger_url)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in ("shop", "broken", "syntax", "needs"):
        sys.modules.pop(name, None)
