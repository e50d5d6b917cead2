"""What the demo and the bench start, and its end: a server, worker processes, a collector, a folder."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import psutil

from tidegate.demo.interrupts import Interrupts
from tidegate.embedded import EmbeddedServer
from tidegate.errors import TidegateError

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0

# Runs in the child before it becomes the command: it gets SIGTERM when the demo dies, even by kill -9.
_DIE_WITH_OWNER = (
    "import ctypes,os,sys\n"
    "ctypes.CDLL(None).prctl(1,15,0,0,0)\n"
    "if os.getppid()!=int(sys.argv[1]): os._exit(0)\n"
    "os.execv(sys.argv[2],sys.argv[2:])\n"
)


class Stack:
    """A private folder with an embedded server on a free port, worker processes of ``app`` and a collector, if it is wanted.

    Use it with ``with``. Whatever happens, at its end no process and no file of it is left. ``TidegateError`` with a
    process's last words when one does not start.
    """

    def __init__(self, interrupts: Interrupts, app: str, *, processes: int, collector: bool) -> None:
        self._interrupts = interrupts
        self._app, self._processes, self._collects = app, processes, collector
        self._ends = contextlib.ExitStack()
        self._collector: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self.folder = Path()
        self.url = ""

    def __enter__(self) -> Stack:
        try:
            with self._interrupts.held():
                self.folder = Path(tempfile.mkdtemp(prefix="tidegate-demo-"))
                self._ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
            with self._interrupts.held():
                server = EmbeddedServer(self.folder / "valkey", persist=True, port=0)
                self._ends.callback(server.stop)
                server.start()
            self.url = server.url
            self._worker = self._start("worker", self._app, "--processes", str(self._processes))
            if self._collects:
                self._collector = self._start("collector", "--port", "0", "--json-address", answers=True)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process, then remove the folder. Signals wait meanwhile."""
        self._interrupts.close_ears()
        self._ends.close()

    def collector_address(self) -> str:
        """Where the dashboard is; waits until it is there."""
        assert self._collector is not None, "ask for a collector"
        assert self._collector.stdout is not None
        text, deadline = b"", time.monotonic() + _START_TIMEOUT_S
        while b"}" not in text:
            self.check()
            if time.monotonic() > deadline:
                raise TidegateError("the collector did not start in time", remedy=self._last_words("collector"))
            if select.select([self._collector.stdout], [], [], 0.2)[0]:
                text += os.read(self._collector.stdout.fileno(), 4096)
        return str(json.loads(text)["address"])

    def worker_cpu_s(self) -> float:
        """CPU seconds of the worker program so far, its living processes included."""
        assert self._worker is not None
        times = [process.cpu_times() for process in (psutil.Process(self._worker.pid), *_children(self._worker.pid))]
        return sum(one.user + one.system for one in times)

    def check(self) -> None:
        """``TidegateError`` when a process has ended that should not."""
        for name, process in (("worker", self._worker), ("collector", self._collector)):
            if process is not None and process.poll() is not None:
                raise TidegateError(f"the {name} ended with code {process.returncode}", remedy=self._last_words(name))

    def _start(self, command: str, *arguments: str, answers: bool = False) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-P", "-m", "tidegate", command, *arguments]
        if sys.platform == "linux":
            program = [sys.executable, "-I", "-S", "-c", _DIE_WITH_OWNER, str(os.getpid()), *program]
        with self._interrupts.held(), self._log(command).open("wb") as log:
            # A session of its own: Ctrl-C in the terminal reaches the demo alone, which ends the others in order.
            process = subprocess.Popen(
                program,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if answers else log,
                stderr=log,
                start_new_session=True,
            )
            self._ends.callback(_end, process)
        return process

    def _environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        import_path = os.pathsep.join(path for path in sys.path if path)
        return {
            **own,
            "PYTHONPATH": import_path,
            "TIDEGATE_URL": self.url,
            "TIDEGATE_STATE_DIR": str(self.folder),
            "TIDEGATE_TELEMETRY_S": "0.5",
            "TIDEGATE_GRACE_S": "3",
        }

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _last_words(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").strip().splitlines()
        return "its last words: " + (" | ".join(lines[-3:]) or "none")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then insist: with it end the processes that it started."""
    family = _children(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
    for straggler in family:
        with contextlib.suppress(psutil.Error):
            straggler.kill()
    if process.poll() is None:
        process.kill()
    process.wait()
    stdout: IO[bytes] | None = process.stdout
    if stdout is not None:
        stdout.close()


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []
