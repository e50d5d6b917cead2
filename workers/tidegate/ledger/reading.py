"""Reading a job's streams: results, dead letters, events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import redis

from tidegate.ledger.calls import Caller
from tidegate.ledger.port import Cursor
from tidegate.model.outcome import FailureRecord
from tidegate.model.wire import decode_failures

#: A blocking read asks for so long at most, which is well within the reply timeout of a connection.
_BLOCK_MS = 2000
_PAGE = 16


def blocks(
    caller: Caller, stream: bytes, cursor: Cursor, *, count: int, block_ms: int | None
) -> tuple[list[bytes], Cursor]:
    """The next blocks after ``cursor``, waiting up to ``block_ms`` for one."""
    entries = _read(caller, stream, cursor.position, count, block_ms)
    if not entries:
        return [], cursor
    return [fields[b"d"] for _, fields in entries], Cursor(entries[-1][0].decode())


def failures(caller: Caller, stream: bytes) -> Iterator[FailureRecord]:
    """Every dead letter, a page of blocks at a time."""
    cursor = Cursor()
    while True:
        page, cursor = blocks(caller, stream, cursor, count=_PAGE, block_ms=None)
        if not page:
            return
        for block in page:
            yield from decode_failures(block)


def event(caller: Caller, stream: bytes, since: int, *, block_ms: int) -> int | None:
    """The number of the newest event after ``since``, waiting up to ``block_ms`` for one."""
    entries = _read(caller, stream, f"{since}-1", 16, block_ms)
    return int(entries[-1][0].partition(b"-")[0]) if entries else None


def _read(
    caller: Caller, stream: bytes, after: str, count: int, block_ms: int | None
) -> list[tuple[bytes, dict[bytes, Any]]]:
    deadline = time.monotonic() + (block_ms or 0) / 1000
    while True:
        left_ms = round((deadline - time.monotonic()) * 1000)
        block = min(_BLOCK_MS, left_ms) if left_ms > 0 else None
        reply = caller.command("read", partial(redis.Redis.xread, streams={stream: after}, count=count, block=block))
        if reply:
            entries: list[tuple[bytes, dict[bytes, Any]]] = reply[0][1]
            return entries
        if left_ms <= 0:
            return []
