"""The witness: a file outside Redis to which every execution appends one line, whatever becomes of its process.

A line is ``job index attempt pid mono_ns``; one ``write`` to a file opened for appending is one line, also from many
processes (POSIX write, O_APPEND). Nothing is buffered in the process: what ran before a ``kill -9`` is on record.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

_open_files: dict[tuple[int, str], int] = {}


def note(path: str | Path, job: str, index: int, attempt: int) -> None:
    """Append one execution. Keyed by process, so that a forked child opens a file of its own."""
    key = (os.getpid(), str(path))
    descriptor = _open_files.get(key)
    if descriptor is None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        _open_files[key] = descriptor
    os.write(descriptor, b"%b %d %d %d %d\n" % (job.encode(), index, attempt, os.getpid(), time.monotonic_ns()))


@dataclass(slots=True)
class Testimony:
    """What the witness saw of one job."""

    executions: int = 0
    by_index: Counter[int] = field(default_factory=Counter)
    first_ns: int = 0
    last_ns: int = 0
    gaps_ns: list[tuple[int, int]] = field(default_factory=list)

    @property
    def executed(self) -> int:
        """Items executed at least once."""
        return len(self.by_index)

    @property
    def executed_again(self) -> int:
        """Executions beyond the first of each item."""
        return self.executions - len(self.by_index)


def read(path: str | Path, job: str) -> Testimony:
    """Everything that was noted for one job; a torn last line counts as not written."""
    seen = Testimony()
    prefix = job.encode() + b" "
    with Path(path).open("rb") as file:
        for line in file:
            if not line.startswith(prefix) or not line.endswith(b"\n"):
                continue
            _job, index, _attempt, _pid, mono_ns = line.split()
            seen.executions += 1
            seen.by_index[int(index)] += 1
            seen.first_ns = min(seen.first_ns or int(mono_ns), int(mono_ns))
            seen.last_ns = max(seen.last_ns, int(mono_ns))
    return seen
