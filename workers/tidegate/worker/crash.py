"""What a process that died leaves behind: the leases it held, which of their items were running, and which had ended.

The held-lease file has the first, the crash journal the second, the outcome log the third. All are memory-mapped, so that
they survive any death.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.executor.journal import JournalEntry, read_journal
from tidegate.executor.outlog import OutcomesRead, Recorded, read_outcomes
from tidegate.worker.held import HeldLease, read_held

log = logging.getLogger(__name__)

#: One running item: the tag of its lease and its position in the batch.
Suspect = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended. ``status`` is what ``os.waitpid`` gave; ``guilty`` is set when the supervisor ended it."""

    pid: int
    status: int
    memory: int = 0
    memory_limit: int = 0
    guilty: frozenset[Suspect] | None = None
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code, or the negative number of the signal."""
        return os.waitstatus_to_exitcode(self.status)

    def __str__(self) -> str:
        code = self.exit_code
        text = f"ended by {_signal_name(-code)}" if code < 0 else f"exited with code {code}"
        if self.reason:
            text += f" ({self.reason})"
        elif code == -signal.SIGKILL and self.memory_limit and self.memory > 0.8 * self.memory_limit:
            text += f" (probably out of memory: it used {self.memory:,} of {self.memory_limit:,} bytes)"
        return text


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was left of a dead process, by the tag of the lease: positions that were running, and items that had ended and
    were perhaps not committed."""

    held: list[HeldLease]
    running: Mapping[bytes, Collection[int]]
    ended: Mapping[bytes, Mapping[int, Recorded]] = field(default_factory=dict)
    #: ``running`` is what ended the process. Otherwise it is one of them, and nobody knows which.
    named: bool = True

    @property
    def suspects(self) -> int:
        """Items that were running."""
        return sum(len(positions) for positions in self.running.values())


def salvage(
    held_path: Path, journal_path: Path, outcomes_path: Path, guilty: frozenset[Suspect] | None = None
) -> Salvage:
    """Read what the process left. Files that are missing or damaged count as empty: then the leases expire.

    An item is in the outcome log before the journal stops naming it, so one that is in both had ended.
    """
    _, held = read_held(held_path)
    tags = {lease.tag for lease in held}
    ended: dict[bytes, dict[int, Recorded]] = {}
    for record in _recorded(outcomes_path).records:
        if record.tag in tags:
            ended.setdefault(record.tag, {}).setdefault(record.position, record)
    entries = _entries(journal_path)
    culprits = guilty or {(entry.tag, entry.position) for entry in entries if entry.blamed}
    running: dict[bytes, set[int]] = {}
    for tag, position in culprits or {(entry.tag, entry.position) for entry in entries}:
        if tag in tags and position not in ended.get(tag, ()):
            running.setdefault(tag, set()).add(position)
    alone = sum(len(positions) for positions in running.values()) == 1
    return Salvage(held, running, ended, named=bool(culprits) or alone)


def _recorded(path: Path) -> OutcomesRead:
    try:
        found = read_outcomes(path)
    except FileNotFoundError:  # it died before it had one
        return OutcomesRead([])
    except (OSError, ValueError) as error:
        log.warning("outcome log not readable path=%s reason=%s", path.name, error)
        return OutcomesRead([])
    if found.torn or found.unwritten:
        log.warning(
            "outcome log is not complete, items may run again path=%s unwritten=%d damaged=%d",
            *(path.name, found.unwritten, found.torn),
        )
    return found


def overdue_items(held_path: Path, journal_path: Path) -> frozenset[Suspect]:
    """Items of a process, alive or just dead, that have been running for longer than their hard timeout."""
    _, held = read_held(held_path)
    limits = {lease.tag: lease.hard_timeout_s for lease in held if lease.hard_timeout_s > 0}
    if not limits:
        return frozenset()
    now_ns = time.monotonic_ns()
    try:
        entries = read_journal(journal_path)
    except (OSError, ValueError):
        return frozenset()
    return frozenset(
        (entry.tag, entry.position)
        for entry in entries
        if entry.tag in limits and now_ns - entry.started_mono_ns > limits[entry.tag] * 1e9
    )


def _entries(journal_path: Path) -> list[JournalEntry]:
    """Items that a process, alive or dead, is running by its journal."""
    try:
        return read_journal(journal_path)
    except (OSError, ValueError) as error:
        log.warning("crash journal not readable path=%s reason=%s", journal_path.name, error)
        return []


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
