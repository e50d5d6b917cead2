"""The crash journal: which items a process runs, or was running when it died. Written by the C core with plain stores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from os import PathLike
from typing import NoReturn

from tidegate.executor import _native


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One item that runs, or ran when the process ended. ``started_mono_ns`` is on the boot's monotonic clock.

    ``blamed``: it is what ended the process, see :func:`name_culprits`.
    """

    tag: bytes
    position: int
    attempt: int
    started_mono_ns: int
    slot: int = 0
    blamed: bool = False


def read(path: str | PathLike[str]) -> list[JournalEntry]:
    """The items of a journal, of a dead or a living process. ``OSError`` if it cannot be read, ``ValueError`` if it is no
    journal or of another version."""
    _pid, _created, entries = _native.journal_read(path)
    return [
        JournalEntry(tag, position, attempt, start_ns, slot, blamed)
        for tag, position, attempt, start_ns, slot, _, blamed in entries
    ]


def read_pid(path: str | PathLike[str]) -> int:
    """The process that wrote a journal."""
    return int(_native.journal_read(path)[0])


def name_culprits() -> None:
    """From now on, this process's journal says which item ends it, if it dies of SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGABRT
    on the thread that runs the item, or by ``os._exit``.

    What handled the signals before handles them after: call it after ``faulthandler.enable()``. For processes that run
    nothing but items, as it replaces ``os._exit``.
    """
    _native.name_culprits()
    leave = os._exit
    if not getattr(leave, "names_culprit", False):

        def named_exit(status: int) -> NoReturn:
            _native.blame()
            leave(status)

        named_exit.names_culprit = True  # type: ignore[attr-defined]
        os._exit = named_exit


read_journal = read
