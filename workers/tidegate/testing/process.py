"""A real worker beside the test: a supervisor with its processes, which may be killed. It ends when the test's process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidegate.embedded import start_owned
from tidegate.errors import ConfigurationError

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 40.0


class WorkerProcess:
    """``tidegate worker APP`` as a child process. Start it with ``with``; it has stopped when the block ends.

    ``app``: ``MODULE:NAME``. ``url``: the ledger's address. ``folder``: where the module is (default: here).
    ``log``: what it has written so far, the last 2,000 lines.
    """

    def __init__(
        self,
        app: str,
        url: str,
        *,
        processes: int = 1,
        folder: str | os.PathLike[str] | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [sys.executable, "-m", "tidegate", "worker", app, "--processes", str(processes), *options]
        self._environment = {**os.environ, "TIDEGATE_URL": url, **(environment or {})}
        self._folder = Path(folder) if folder is not None else None
        self._processes = processes
        self._process: subprocess.Popen[str] | None = None
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None
        self._seen_ready = 0
        self.log: list[str] = []

    @property
    def pid(self) -> int:
        """Process id of the supervisor, 0 while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self) -> WorkerProcess:
        """Start, and wait until every process consumes. ``ConfigurationError`` with its last words if it ends instead."""
        self._process = start_owned(self._command, self._open)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(_START_TIMEOUT_S) or not self.pid or self._seen_ready < self._processes:
            self.kill()
            words = "\n".join(self.log[-5:]) or "it wrote nothing"
            raise ConfigurationError(f"the worker did not start: {words}", remedy="correct what it says")
        return self

    def stop(self) -> int:
        """Ask it to stop, wait, and kill it if it does not; its exit code. May be repeated."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()
        finally:
            if self._reader is not None:
                self._reader.join(5.0)

    def kill(self) -> None:
        """End the supervisor at once, as a power cut would; its processes notice and drain."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> WorkerProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _open(self, command: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env=self._environment,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log.append(line.rstrip())
            del self.log[:-2000]
            if " ready worker=" in line:
                self._seen_ready += 1
                if self._seen_ready >= self._processes:
                    self._ready.set()
        self._ready.set()
        self._process.stdout.close()
