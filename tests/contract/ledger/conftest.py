"""A desk to work a ledger from: short words for the calls, time that moves by hand, and a look at everything written."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from tidegate.ledger import keys
from tidegate.ledger.audit import audit, dump
from tidegate.ledger.port import Committed, Lease, Nothing, Refused, Settlement
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import BatchPayload, JobSpec, new_job_id
from tidegate.model.outcome import Outcome

LEASE_MS = 10_000


class Desk:
    """A ledger at a real server. ``skew(ms)`` moves the clock that its scripts see."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ledger = RedisLedger.from_url(url)
        self.client = self.ledger.client
        self.jobs: list[str] = []
        self.tickets: dict[str, tuple[int, ...]] = {}
        self._numbers = itertools.count(1)

    def nonce(self) -> str:
        return f"n{next(self._numbers)}"

    def skew(self, ms: int) -> None:
        self.ledger._caller.skew_ms += ms

    def job(self, sizes: Sequence[int] = (10, 10, 10), *, sealed: bool = True, **options: Any) -> str:
        """A job of one chunk with batches of these sizes."""
        job_id = new_job_id()
        self.jobs.append(job_id)
        self.ledger.open(JobSpec(job_id=job_id, task="mod:task", **options))
        self.tickets[job_id] = ()
        if sizes:
            self.append(job_id, 0, sizes)
        if sealed:
            self.ledger.seal(job_id, 1 if sizes else 0)
        return job_id

    def append(self, job_id: str, chunk: int, sizes: Sequence[int]) -> Any:
        batches = [BatchPayload(size, f"payload {chunk}.{i}".encode()) for i, size in enumerate(sizes)]
        appended = self.ledger.append(job_id, chunk, batches)
        self.tickets[job_id] += appended.tickets
        return appended

    def try_claim(
        self, job_id: str, claimer: str = "w1/0", *, ticket: int | None = None, nonce: str = ""
    ) -> Lease | Nothing:
        chosen = self.ticket(job_id) if ticket is None else ticket
        return self.ledger.claim(job_id, ticket=chosen, claimer=claimer, nonce=nonce or self.nonce(), lease_ms=LEASE_MS)

    def ticket(self, job_id: str) -> int:
        """A ticket of the job's window, or the first that it ever had."""
        window = self.client.zrange(keys.job_key(job_id, "tickets"), 0, 0)
        return int(window[0]) if window else next(iter(self.tickets[job_id]), 0)

    def claim(self, job_id: str, claimer: str = "w1/0") -> Lease:
        lease = self.try_claim(job_id, claimer)
        assert isinstance(lease, Lease)
        return lease

    def try_commit(self, lease: Lease, settlement: Settlement, **options: Any) -> Committed | Refused:
        options.setdefault("nonce", self.nonce())
        return self.ledger.commit(lease, settlement, lease_ms=LEASE_MS, **options)

    def commit(self, lease: Lease, settlement: Settlement, **options: Any) -> Committed:
        answer = self.try_commit(lease, settlement, **options)
        assert isinstance(answer, Committed)
        return answer

    def finish(self, lease: Lease, **outcomes: int) -> Committed:
        """Settle what is left of a lease that nobody worked on before."""
        return self.commit(lease, whole(lease, **outcomes))

    def sweep(self, job_id: str, *, slots: int = 4, stall_ms: int = 5000, limit: int = 100) -> Any:
        return self.ledger.sweep(job_id, slots=slots, stall_ms=stall_ms, limit=limit)

    def dump(self, job_id: str) -> dict[str, Any]:
        return dump(self.client, job_id)

    def without_counts_of_refusals(self, job_id: str) -> dict[str, Any]:
        found = self.dump(job_id)
        found.get("meta", {}).pop(b"stale_refused", None)
        return found

    def check(self) -> None:
        for job_id in self.jobs:
            assert audit(self.client, job_id) == []


def whole(lease: Lease, **outcomes: int) -> Settlement:
    """A settlement of every item of a batch; succeeded unless said otherwise."""
    counts: Mapping[Outcome, int] = {Outcome(name): n for name, n in outcomes.items()} or {
        Outcome.SUCCEEDED: lease.items
    }
    return Settlement(
        settled=lease.items, outcomes=counts, executions=lease.items, results=b"results of %d" % lease.batch
    )


def part(lease: Lease, positions: Sequence[int], **options: Any) -> Settlement:
    """A settlement of some items of a batch, all succeeded."""
    bits = bytearray(-(-lease.items // 8))
    for position in positions:
        bits[position // 8] |= 1 << position % 8
    count = len(positions)
    options.setdefault("executions", count)
    return Settlement(settled=count, bits=bytes(bits) if count else b"", outcomes={Outcome.SUCCEEDED: count}, **options)


@pytest.fixture
def desk(ledger_url: str) -> Iterator[Desk]:
    """A desk at an empty server; every job that it opened must add up when the test ends."""
    desk = Desk(ledger_url)
    yield desk
    desk.check()
    desk.ledger.close()


@pytest.fixture
def settle() -> Any:
    """``settle.whole(lease, succeeded=…)`` and ``settle.part(lease, positions)``."""

    class Settle:
        whole = staticmethod(whole)
        part = staticmethod(part)

    return Settle
