"""Reading a job: its streams, its histograms, and whether it is on the server's disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import redis

from tidegate.ledger import keys
from tidegate.ledger.calls import Caller
from tidegate.ledger.port import Cursor
from tidegate.ledger.replies import add_stats
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


def outcomes(
    caller: Caller, job_id: str, results: Cursor, failures: Cursor, *, count: int, block_ms: int | None
) -> tuple[list[bytes], Cursor, list[FailureRecord], Cursor]:
    """The next blocks of a job's results and of its dead letters, in one request, which waits up to ``block_ms`` for any."""
    good, bad = keys.job_key(job_id, "results"), keys.job_key(job_id, "dead")
    wanted: dict[Any, Any] = {good: results.position, bad: failures.position}
    block = min(block_ms, _BLOCK_MS) if block_ms else None  # to Redis, 0 means for ever
    reply: list[Any] = caller.command("read", lambda c: c.xread(wanted, count=count, block=block)) or []
    found = {stream: entries for stream, entries in reply if entries}
    for_results, for_failures = found.get(good, []), found.get(bad, [])
    return (
        [fields[b"d"] for _, fields in for_results],
        Cursor(for_results[-1][0].decode()) if for_results else results,
        [record for _, fields in for_failures for record in decode_failures(fields[b"d"])],
        Cursor(for_failures[-1][0].decode()) if for_failures else failures,
    )


def event(caller: Caller, stream: bytes, since: int, *, block_ms: int) -> int | None:
    """The number of the newest event after ``since``, waiting up to ``block_ms`` for one."""
    entries = _read(caller, stream, f"{since}-1", 16, block_ms)
    return int(entries[-1][0].partition(b"-")[0]) if entries else None


def done_bits(caller: Caller, job_id: str, batch: int) -> bytes:
    """The bitmap of an unfinished batch's settled items."""
    found: Any = caller.command("done_bits", lambda client: client.hget(keys.job_key(job_id, "bits"), str(batch)))
    return found or b""


def stats(caller: Caller, job_id: str) -> dict[str, int]:
    """The flat fields of the job's histograms, the last commits' included."""

    def send(client: redis.Redis) -> Any:
        pipe = client.pipeline(transaction=True)
        pipe.hgetall(keys.job_key(job_id, "stats"))
        pipe.lrange(keys.job_key(job_id, "recent"), 0, -1)
        return pipe.execute()

    return add_stats(*caller.command("stats", send))


def texts(caller: Caller, job_id: str, name: str) -> dict[str, str]:
    """One of the job's hashes of short texts."""
    found: dict[bytes, bytes] = caller.command(name, lambda client: client.hgetall(keys.job_key(job_id, name)))
    return {field.decode("utf-8", "replace"): text.decode("utf-8", "replace") for field, text in found.items()}


def sync(caller: Caller, job_id: str, *, timeout_s: float) -> tuple[bytes, int, int, bool] | None:
    """The job's state, next chunk and items, and whether they are on the server's disk; ``None`` without such a job.

    The state is read, then something is written, then the server says that this write is on its disk, all on one
    connection: so what was read is on its disk too, whichever connection wrote it.
    """

    deadline = time.monotonic() + timeout_s

    def send(client: redis.Redis) -> Any:
        left_ms = max(1, min(_BLOCK_MS, round((deadline - time.monotonic()) * 1000)))
        pipe: Any = client.pipeline(transaction=False)
        pipe.hmget(keys.job_key(job_id, "meta"), "state", "next_chunk", "total")
        pipe.set(keys.SYNCED, "1")
        pipe.execute_command("WAITAOF", 1, 0, left_ms)
        return pipe.execute()

    while True:
        (state, next_chunk, items), _, waited = caller.command("sync", send)
        if state is None:
            return None
        if waited[0] >= 1 or time.monotonic() >= deadline:
            return state, int(next_chunk), int(items), waited[0] >= 1


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
