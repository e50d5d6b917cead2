"""The crash journal: which items a process runs, or was running when it died. Written by the C core with plain stores."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from tidegate.executor import _native


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One item that runs, or ran when the process ended. ``started_mono_ns`` is on the boot's monotonic clock."""

    tag: bytes
    position: int
    attempt: int
    started_mono_ns: int
    slot: int = 0


def read(path: str | PathLike[str]) -> list[JournalEntry]:
    """The items of a journal, of a dead or a living process. ``OSError`` if it cannot be read, ``ValueError`` if it is no
    journal or of another version."""
    _pid, _created, entries = _native.journal_read(path)
    return [
        JournalEntry(tag, position, attempt, start_ns, slot) for tag, position, attempt, start_ns, slot, _ in entries
    ]


def read_pid(path: str | PathLike[str]) -> int:
    """The process that wrote a journal."""
    return int(_native.journal_read(path)[0])


read_journal = read
