"""A worker made by hand: it claims and commits through the ledger, when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tidegate.ledger.keys import job_key
from tidegate.ledger.port import Lease, Settlement
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import JobSpec, new_job_id
from tidegate.model.outcome import Outcome
from tidegate.model.wire import decode_items, encode_results
from tidegate.producer.sizing import BatchSizer
from tidegate.producer.submission import Submission, SubmissionOptions


@dataclass
class HandWorker:
    """Settles batches one at a time and remembers their items by index."""

    ledger: RedisLedger
    tickets: list[int] = field(default_factory=list)
    seen: dict[int, object] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    requests: int = 0
    remember: bool = True

    def send(self, job_id: str, numbers: Sequence[int]) -> None:
        """What a submission calls to send tickets."""
        self.tickets += numbers

    def settle_one(self, job_id: str) -> bool:
        """Run the next batch; whether there was one."""
        if not self.tickets:
            # Those that went to the queue, or that the submission was given: the ledger's window holds them all.
            window: Any = self.ledger.client.zrange(job_key(job_id, "tickets"), 0, -1)
            self.tickets += map(int, window)
        if not self.tickets:
            return False
        self.requests += 1
        nonce = f"hand{self.requests}"
        lease = self.ledger.claim(job_id, ticket=self.tickets[0], claimer="hand", nonce=nonce, lease_ms=60_000)
        if not isinstance(lease, Lease):
            self.tickets.pop(0)
            return False
        _, items = decode_items(lease.payload)
        if self.remember:
            for index, item in enumerate(items, lease.first_index):
                assert index not in self.seen
                self.seen[index] = item
        self.batches.append(len(items))
        settlement = Settlement(
            settled=lease.items,
            outcomes={Outcome.SUCCEEDED: lease.items},
            executions=lease.items,
            results=encode_results(lease.first_index, items),
            stats={"running_count": lease.items, "running_sum_ns": lease.items * 1000},
        )
        self.ledger.commit(lease, settlement, nonce=f"{nonce}c", lease_ms=60_000)
        return True

    def settle_all(self, job_id: str) -> None:
        while self.settle_one(job_id):
            pass


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[RedisLedger]:
    with RedisLedger.from_url(ledger_url) as ledger:
        yield ledger


@pytest.fixture
def hand_on() -> Callable[[RedisLedger], HandWorker]:
    """Makes a hand worker on another ledger."""
    return HandWorker


@pytest.fixture
def hand(ledger: RedisLedger) -> HandWorker:
    return HandWorker(ledger)


@pytest.fixture
def submission(ledger: RedisLedger, hand: HandWorker) -> Callable[..., Submission]:
    """Makes a submission: ``submission(fixed=…, patience_s=…, exists=…, spec fields…)``."""

    def make(
        *,
        fixed: int | None = 10,
        patience_s: float | None = None,
        exists: bool = False,
        max_batch_bytes: int = 1 << 20,
        **spec: object,
    ) -> Submission:
        chosen = JobSpec(**{"job_id": new_job_id(), "task": "app.f", **spec})  # type: ignore[arg-type]
        options = SubmissionOptions(max_batch_bytes=max_batch_bytes, patience_s=patience_s, exists=exists)
        return Submission(ledger, chosen, BatchSizer(fixed=fixed), hand.send, options)

    return make
