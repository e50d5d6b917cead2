"""A small world for the parts that only watch: jobs made and worked off by real ledger calls, telemetry by real records."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec

from tidegate.ledger.connection import connect
from tidegate.ledger.port import Committed, Lease, Settlement
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import BatchPayload, JobSpec, Origin, new_job_id
from tidegate.model.outcome import FailureRecord, Outcome
from tidegate.model.stats import coarse_index
from tidegate.model.wire import Shape, encode_argument, encode_failures, encode_items
from tidegate.telemetry.record import LaneDelta, TelemetryRecord
from tidegate.telemetry.stream import STREAM, TelemetryWriter

MS = 1_000_000
LEASE_MS = 15_000

TRACE = """Traceback (most recent call last):
  File "/site-packages/tidegate/run.py", line 5, in call
    return function(item)
  File "/app/shop/fetch.py", line 31, in fetch
    raise ValueError(url)
ValueError: no such page"""


class World:
    """One server with a ledger, and what workers would do to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ledger = RedisLedger.from_url(url)
        self._client = connect(url)
        self._writer = TelemetryWriter(self._client, keep=20_000)

    def close(self) -> None:
        self.ledger.close()
        self._client.close()

    def submit(
        self, task: str = "shop.fetch", *, items: int = 200, batch: int = 50, **spec: Any
    ) -> tuple[str, list[int]]:
        """A sealed job, and the tickets to work with."""
        options = {"origin": Origin("/app/shop/views.py", 88, "import_all"), "concurrency": 8, "attempts": 3, **spec}
        job = JobSpec(job_id=new_job_id(), task=task, **options)
        self.ledger.open(job)
        payload = encode_items(list(range(batch)), Shape.ONE, max_bytes=1 << 20)
        batches = [BatchPayload(items=batch, data=payload) for _ in range(items // batch)]
        tickets = self.ledger.append(job.job_id, 0, batches).tickets
        self.ledger.seal(job.job_id, 1)
        return job.job_id, list(tickets)

    def work(
        self,
        job_id: str,
        tickets: list[int],
        *,
        batches: int = 1 << 30,
        settle: Callable[[Lease], Settlement] | None = None,
    ) -> int:
        """Claim and commit batches until none is ready; how many items were settled."""
        self.ledger.heartbeat(
            "box-1-abc", slots=4, ttl_ms=60_000, facts={"queues": "tidegate", "host": "box", "pid": 1}
        )
        settled = 0
        for ticket in tickets:
            while batches > 0 and isinstance(lease := self._claim(job_id, ticket), Lease):
                settlement = (settle or succeed)(lease)
                settled += settlement.settled
                batches -= 1
                answer = self.ledger.commit(lease, settlement, nonce=secrets.token_hex(8), lease_ms=LEASE_MS)
                assert isinstance(answer, Committed)
        return settled

    def _claim(self, job_id: str, ticket: int) -> Any:
        return self.ledger.claim(
            job_id, ticket=ticket, claimer="box-1-abc/0", nonce=secrets.token_hex(8), lease_ms=LEASE_MS
        )

    def tell(
        self,
        worker: str,
        sequence: int,
        *,
        task: str = "shop.fetch",
        lane: dict[str, Any] | None = None,
        at_ms: int = 0,
        **fields: Any,
    ) -> None:
        """One telemetry record: in its second, ten items succeeded. ``at_ms`` puts it elsewhere in the stream's time."""
        counts = {
            "started": 10,
            "succeeded": 10,
            "busy_ns": 4000 * MS,
            "concurrency": 8,
            "running": 4,
            "peak_running": 6,
        }
        stats = times(running=[400 * MS] * 10)
        record = TelemetryRecord(
            worker=worker,
            sequence=sequence,
            **{
                "host": "box",
                "pid": 41,
                "queues": ("tidegate",),
                "wall_ms": time.time_ns() // MS,
                "interval_ns": 1000 * MS,
                "slots": 4,
                "idle_ns": 400 * MS,
                "claims": 2,
                "commits": 2,
                "cpu_ns": 300 * MS,
                "memory_bytes": 100 << 20,
                "memory_peak_bytes": 120 << 20,
                "memory_limit_bytes": 1 << 30,
                "lanes": (LaneDelta(**{"task": task, "stats": stats, **counts, **(lane or {})}),),
                **fields,
            },
        )
        if at_ms:
            self._client.xadd(STREAM, {"r": msgspec.msgpack.encode(record)}, id=f"{at_ms}-0")
        else:
            self._writer.write(record)


def times(**classes: list[int]) -> dict[str, int]:
    """Histogram fields of measurements in nanoseconds, as workers commit them."""
    fields: dict[str, int] = {}
    for name, values in classes.items():
        for value in values:
            key = f"{name}:{coarse_index(value)}"
            fields[key] = fields.get(key, 0) + 1
        fields |= {f"{name}_count": len(values), f"{name}_sum_ns": sum(values)}
        fields |= {f"{name}_min_ns": min(values), f"{name}_max_ns": max(values)}
    return fields


def succeed(lease: Lease) -> Settlement:
    """All items of a batch succeed in 5 ms."""
    stats = times(running=[5 * MS] * lease.items, queued=[MS] * lease.items)
    return Settlement(
        settled=lease.items, outcomes={Outcome.SUCCEEDED: lease.items}, executions=lease.items, stats=stats
    )


def failing(
    share: float, *, message: str = "no such page", error_type: str = "ValueError", argument: Any = "x"
) -> Callable[[Lease], Settlement]:
    """That share of each batch fails after two retries, the rest succeeds."""

    def settle(lease: Lease) -> Settlement:
        bad = round(share * lease.items)
        letters = [
            FailureRecord(
                lease.first_index + position,
                Outcome.FAILED,
                error_type,
                message,
                "a1b2c3d4e5f60718",
                3,
                encode_argument(argument),
                7 * MS,
                0,
                ("attempt 1: ValueError", "attempt 2: ValueError"),
            )
            for position in range(bad)
        ]
        outcomes = {Outcome.SUCCEEDED: lease.items - bad, Outcome.FAILED: bad}
        return Settlement(
            settled=lease.items,
            outcomes={outcome: count for outcome, count in outcomes.items() if count},
            executions=lease.items + 2 * bad,
            retries=2 * bad,
            failures=encode_failures(letters) if letters else b"",
            traces={"a1b2c3d4e5f60718": TRACE} if letters else {},
            errors={error_type: bad} if bad else {},
            stats=times(running=[5 * MS] * (lease.items + 2 * bad)),
        )

    return settle
