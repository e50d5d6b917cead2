"""The outcome log: how items ended that are not reported yet, in a file that survives the process. Written by the C core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from tidegate.executor import _native
from tidegate.executor.failure import ItemFailure
from tidegate.model.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeLog:
    """Where a host is to keep its log, and how. The file takes ``chunks`` times 32 KiB.

    ``encode`` makes bytes (msgpack) of results that are not None, bool, int, float, str or bytes. ``describe`` makes bytes
    of the failure of an item that was submitted under a tag. What either of them refuses is noted as ended, without more.
    """

    path: Path
    encode: Callable[[object], bytes]
    describe: Callable[[bytes, ItemFailure], bytes]
    chunks: int = 256


@dataclass(frozen=True, slots=True)
class Recorded:
    """How one item ended. ``content``: its result as msgpack, or what ``describe`` made of its failure. ``lost``: there
    was one, and it found no room or could not be encoded."""

    tag: bytes
    position: int
    outcome: Outcome
    attempts: int
    content: bytes
    lost: bool = False


@dataclass(frozen=True, slots=True)
class OutcomesRead:
    """What a log holds. ``unwritten``: contents that found no room since the process began; ``torn``: damaged chunks."""

    records: list[Recorded]
    unwritten: int = 0
    torn: int = 0


_OUTCOMES = tuple(Outcome)  # the C core counts them from 1, in this order


def read_outcomes(path: str | PathLike[str]) -> OutcomesRead:
    """The log of a dead process, oldest first for each item. ``OSError`` if it cannot be read, ``ValueError`` if it is no
    outcome log or of another version."""
    _pid, unwritten, torn, records = _native.outcomes_read(path)
    return OutcomesRead(
        [
            Recorded(tag, position, _OUTCOMES[number - 1], attempts, content, lost)
            for tag, position, number, attempts, lost, content in records
            if 0 < number <= len(_OUTCOMES)  # else it is damage
        ],
        unwritten,
        torn,
    )
