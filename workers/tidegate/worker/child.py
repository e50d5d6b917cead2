"""Child: one worker process as its supervisor sees it, and the rule for how soon a dead one is replaced."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.worker.held import Header, Stage, read_held
from tidegate.worker.spawner import Started

#: A process that was ready for so long was well; its death starts a new count.
_WELL_S = 10.0
_LONGEST_WAIT_S = 10.0


@dataclass(slots=True)
class Child:
    """A place for a process, and the process that is in it now, if any. Times are monotonic seconds."""

    number: int
    name: str
    folder: Path
    starts: int = 0
    process: Started | None = None
    started: float = 0.0
    ready_at: float = 0.0
    start_due: float = 0.0
    failures: int = 0
    last_beat: int = -1
    beat_at: float = 0.0
    header: Header | None = None
    killed_for: str = ""
    overdue_since: float = 0.0
    guilty: frozenset[tuple[bytes, int]] | None = None
    ever_ready: bool = field(default=False)

    @property
    def held_path(self) -> Path:
        """The held-lease file of the present process."""
        return self.folder / f"{self.number}-{self.starts}.held"

    @property
    def journal_path(self) -> Path:
        """The crash journal of the present process."""
        return self.folder / f"{self.number}-{self.starts}.journal"

    @property
    def outcomes_path(self) -> Path:
        """The outcome log of the present process."""
        return self.folder / f"{self.number}-{self.starts}.outcomes"

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it leaves behind."""
        return self.held_path, self.journal_path, self.outcomes_path

    @property
    def pid(self) -> int:
        """Process id, 0 when there is none."""
        return self.process.pid if self.process is not None else 0

    def look(self) -> None:
        """Read how far the process is and whether its Python runs."""
        header, _ = read_held(self.held_path)
        now = time.monotonic()
        if header is None or header.pid != self.pid:
            return
        self.header = header
        if header.beat != self.last_beat:
            self.last_beat, self.beat_at = header.beat, now
        if header.stage is Stage.READY and not self.ready_at:
            self.ready_at = now
            self.ever_ready = True

    def begin(self, process: Started) -> None:
        """A process was started in this place."""
        self.process = process
        self.started = self.beat_at = time.monotonic()
        self.ready_at = 0.0
        self.last_beat = -1
        self.header = None
        self.killed_for = ""
        self.overdue_since = 0.0
        self.guilty = None

    def end(self, *, explained: bool) -> float:
        """The process is gone; seconds until the next one is started.

        ``explained``: items were running, or it asked to be replaced. Items crash a bounded number of times, so nothing
        needs to be slowed down for them. Unexplained deaths soon after the start are a crash loop, and wait ever longer.
        """
        now = time.monotonic()
        self.process = None
        well = self.ready_at and now - self.ready_at >= _WELL_S
        self.failures = 0 if well or (explained and self.ready_at) else self.failures + 1
        wait_s = 0.0 if not self.failures else min(_LONGEST_WAIT_S, 0.1 * 2 ** (self.failures - 1))
        self.start_due = now + wait_s
        return wait_s
