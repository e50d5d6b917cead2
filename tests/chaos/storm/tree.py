"""WorkerTree: ``tidegate worker`` with its processes, as the storms start, wound and stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import TracebackType

import psutil

CHAOS = Path(__file__).parents[1]


class WorkerTree:
    """One supervisor and its worker processes. Its log goes to a file, which is shown when something fails."""

    def __init__(
        self, url: str, folder: Path, witness: Path, *, processes: int = 2, settings: Mapping[str, object] | None = None
    ) -> None:
        self.folder = folder
        self.processes = processes
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"worker-{time.monotonic_ns()}.log"
        extra = {f"TIDEGATE_{name.upper()}": str(value) for name, value in (settings or {}).items()}
        self._environment = {
            **os.environ,
            "TIDEGATE_URL": url,
            "TIDEGATE_STATE_DIR": str(folder),
            "CHAOS_WITNESS": str(witness),
            **extra,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> WorkerTree:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_tree()

    def start(self) -> WorkerTree:
        command = [
            sys.executable,
            "-m",
            "tidegate",
            "worker",
            "storm.chaos_app:gate",
            "--processes",
            str(self.processes),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=CHAOS, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[psutil.Process]:
        """The worker processes that live now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid).children()
            return [child for child in found if "tidegate.worker.process" in " ".join(_command(child))]
        return []

    def wait_up(self, timeout_s: float = 60) -> None:
        """Wait until all worker processes consume; the log is the reason when they do not."""
        deadline = time.monotonic() + timeout_s
        while self._ready() < self.processes:
            if self.exit_code is not None or time.monotonic() > deadline:
                last = self.log.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"the worker did not come up (exit code {self.exit_code}):\n{last}")
            time.sleep(0.05)

    def _ready(self) -> int:
        said = [line for line in self.log.read_text(errors="replace").splitlines() if " ready worker=" in line]
        return sum(any(f"-{child.pid}-" in line for line in said) for child in self.children())

    def has_worked(self, witness: Path, since: int) -> bool:
        """Whether one of the processes that live now has run an item since the witness's file had ``since`` bytes."""
        with witness.open("rb") as file:
            file.seek(since)
            pids = {row.split()[3] for row in file if row.endswith(b"\n") and row.count(b" ") == 4}
        return any(b"%d" % child.pid in pids for child in self.children())

    def kill_child(self, random: Random) -> int:
        """``kill -9`` one worker process; its pid, 0 when none lives."""
        living = self.children()
        if not living:
            return 0
        victim = random.choice(living)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
            return victim.pid
        return 0

    def signal_child(self, victim: psutil.Process, number: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(number)

    def kill_tree(self) -> list[int]:
        """``kill -9`` everything at once; the pids."""
        if self._process is None:
            return []
        victims = self.children()
        pids = [self.pid, *(victim.pid for victim in victims)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
                victim.wait(10)
        return pids

    def terminate(self, timeout_s: float = 60) -> int:
        """SIGTERM, as a deploy does; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout_s)

    @property
    def exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
