"""What processes used: CPU and peak memory of a program with its children, and stopping and going on of all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Use:
    """CPU seconds so far, and the sum of the processes' highest resident memory."""

    cpu_s: float
    peak_bytes: int


def use_of(pids: list[int]) -> Use:
    """What these processes used so far."""
    cpu, peak = 0.0, 0
    for pid in pids:
        times = psutil.Process(pid).cpu_times()
        cpu += times.user + times.system
        peak += _peak_bytes(pid)
    return Use(cpu, peak)


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


class Worker:
    """A worker program in a session of its own; ``freeze`` and ``thaw`` stop it and let it go on, children included."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self._file = log.open("wb")
        path = os.pathsep.join([str(HERE), *(entry for entry in sys.path if entry)])
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path, **environment},
            stdout=self._file,
            stderr=self._file,
            start_new_session=True,
        )
        self.log = log

    @property
    def pids(self) -> list[int]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [self.process.pid, *(child.pid for child in children)]

    def use(self) -> Use:
        return use_of(self.pids)

    def freeze(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = [psutil.Process(pid) for pid in self.pids] if self.process.poll() is None else []
        self.thaw() if family else None
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for straggler in family:
            if straggler.is_running():
                straggler.kill()
        self._file.close()
