"""Users: several real processes that use one limit, and the log of every use."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("permit_user.py")


class User:
    """One process that uses permits."""

    def __init__(self, url: str, log: Path, limit: dict[str, Any], options: dict[str, Any]) -> None:
        self.log = log
        self.log.touch()
        self.killed_ns = 0
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), url, str(log), json.dumps(limit), json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.killed_ns = time.monotonic_ns()

    def stop(self) -> int:
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def say(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def events(self) -> list[tuple[int, int]]:
        """(time, +1 or -1); what was in use when the process was killed ended then."""
        data = self.log.read_bytes()
        data = data[: len(data) // 16 * 16]
        found = [(at, 1 if kind == 1 else -1) for kind, at in struct.iter_unpack("=qq", data)]
        open_now = sum(step for _, step in found)
        return found + [(self.killed_ns, -1)] * (open_now if self.killed_ns else 0)

    def began(self) -> list[int]:
        return [at for at, step in self.events() if step > 0]


class Users:
    """All processes of a test. ``wait_until`` looks at their logs until a condition holds."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.all, self._number = url, folder, list[User](), count()

    def start(self, limit: dict[str, Any], **options: Any) -> User:
        user = User(self.url, self.folder / f"log{next(self._number)}", limit, options)
        self.all.append(user)
        return user

    def began(self) -> list[int]:
        return sorted(at for user in self.all for at in user.began())

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
            time.sleep(0.01)


@pytest.fixture
def users(ledger_url: str, tmp_path: Path) -> Iterator[Users]:
    users = Users(ledger_url, tmp_path)
    yield users
    for user in users.all:
        if user.process.poll() is None:
            user.kill()
        for pipe in (user.process.stdin, user.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
