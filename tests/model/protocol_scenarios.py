"""Short histories that a right ledger survives: what seeded mistakes are caught with, beside the model's own histories."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from protocol_explore import wander
from protocol_replay import Replay

from tidegate.errors import JobEnded, SubmissionConflict
from tidegate.ledger import keys
from tidegate.ledger.audit import audit, dump
from tidegate.ledger.port import Committed, Lease, Nothing, Refused, Settlement, Token
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import BatchPayload, JobSpec, new_job_id
from tidegate.model.outcome import JobState, Outcome

NOW = 1_800_000_000_000
LEASE_MS = 10_000


class Bench:
    """A job and short words for what is done to it. The clock moves by hand, and every step is recounted."""

    def __init__(self, url: str, *sizes: int, **options: Any) -> None:
        self.ledger = RedisLedger.from_url(url, skew_ms=NOW, tries=1)
        self.client = self.ledger.client
        self.client.flushall()
        self.job = new_job_id()
        self.numbers = itertools.count(1)
        self.ledger.open(JobSpec(job_id=self.job, task="t", ttl_s=100, **options))
        self.tickets = self.append(0, *sizes).tickets

    def append(self, chunk: int, *sizes: int) -> Any:
        return self.ledger.append(self.job, chunk, [BatchPayload(size, b"p" * 10) for size in sizes])

    def later(self, ms: int) -> None:
        self.ledger._caller.skew_ms += ms

    def claim(self, claimer: str = "w", ticket: int | None = None) -> Any:
        window = self.client.zrange(keys.job_key(self.job, "tickets"), 0, 0)
        chosen = ticket or int(window[0] if window else 1)
        nonce = f"n{next(self.numbers)}"
        return self.twice(
            lambda: self.ledger.claim(self.job, ticket=chosen, claimer=claimer, nonce=nonce, lease_ms=LEASE_MS)
        )

    def commit(self, lease: Lease, *positions: int, outcome: Outcome = Outcome.SUCCEEDED, **options: Any) -> Any:
        mask = sum(1 << position for position in positions)
        bits = mask.to_bytes(-(-lease.items // 8), "little") if positions else b""
        settlement = Settlement(
            settled=len(positions), bits=bits, outcomes={outcome: len(positions)}, executions=len(positions), **options
        )
        nonce = f"n{next(self.numbers)}"
        return self.twice(lambda: self.ledger.commit(lease, settlement, nonce=nonce, lease_ms=LEASE_MS))

    def sweep(self, limit: int = 100) -> Any:
        return self.ledger.sweep(self.job, slots=4, stall_ms=5_000, limit=limit)

    def twice(self, call: Callable[[], Any]) -> Any:
        """Whatever is asked twice is answered and done once."""
        answer, state = call(), self.state()
        assert call() == answer
        assert self.state() == state
        assert audit(self.client, self.job) == []
        return answer

    def state(self) -> dict[str, Any]:
        found = dump(self.client, self.job)
        found["meta"].pop(b"stale_refused", None)
        return found

    @property
    def progress(self) -> Any:
        return self.ledger.progress(self.job)


def the_model_is_followed(url: str) -> None:
    for seed in range(40):
        sizes = (2, 1, 3)
        replay = Replay(url, sizes)
        try:
            replay.follow(wander(Random(seed), 5, sizes))
        finally:
            replay.close()


def chunks_are_written_once_and_in_order(url: str) -> None:
    bench = Bench(url, 3, 4)
    bench.twice(lambda: bench.append(1, 5))
    try:
        bench.append(3, 1)
    except SubmissionConflict:
        pass
    else:
        raise AssertionError("a gap")
    assert bench.progress.total == 12
    bench.ledger.seal(bench.job, 2)
    leases = [bench.claim(f"w{i}") for i in range(3)]
    assert [lease.first_index for lease in leases] == [0, 3, 7]


def the_mark_holds(url: str) -> None:
    bench = Bench(url, 1, 1, max_pending_batches=2)
    state = bench.state()
    assert bench.append(1, 1).full
    assert bench.state() == state
    for _ in range(2):
        bench.commit(bench.claim(), 0)
    assert bench.progress.state is JobState.OPEN
    assert not bench.append(1, 1, 1, 1).full


def only_the_holder_writes(url: str) -> None:
    bench = Bench(url, 8, 8)
    lease = bench.claim()
    state = bench.state()
    for token in (Token(lease.token.epoch, "other"), Token(lease.token.epoch + 1, lease.token.nonce)):
        forged = Lease(**{**{name: getattr(lease, name) for name in Lease.__dataclass_fields__}, "token": token})
        assert isinstance(bench.commit(forged, 0), Refused)
        assert isinstance(bench.commit(forged, hand_back=True), Refused)
        assert bench.ledger.renew([forged], lease_ms=50_000) == [False]
        assert bench.state() == state
    assert isinstance(bench.commit(lease, 0, 1), Committed)
    assert isinstance(bench.commit(lease, 1, 2), Refused)
    assert bench.progress.done == 2


def what_is_handed_back_goes_on_where_it_stopped(url: str) -> None:
    bench = Bench(url, 9)
    lease = bench.claim()
    bench.commit(lease, 0, 8, hand_back=True, attempts=bytes(range(9)), crashes=b"\x02" * 9)
    again = bench.claim("v")
    assert (again.done_bits, again.attempts, again.crashes) == (b"\x01\x01", bytes(range(9)), b"\x02" * 9)
    bench.commit(again, 1, hand_back=True, delay_ms=60_000)
    assert bench.claim("u") is Nothing.EMPTY
    bench.later(59_000)
    assert bench.sweep().due_batches == 0
    bench.later(2_000)
    assert bench.sweep().due_batches == 1
    last = bench.claim("u")
    assert last.done_bits == b"\x03\x01"
    bench.commit(last, *range(2, 8))
    assert bench.progress.done == 9
    assert "bits" not in bench.state()


def leases_end_by_the_clock_alone(url: str) -> None:
    bench = Bench(url, 2, 2, 2, 2, 2, 2)
    leases = [bench.claim(f"w{i}") for i in range(4)]
    bench.later(6_000)
    assert bench.ledger.renew(leases[:2], lease_ms=LEASE_MS) == [True, True]
    bench.later(6_000)
    assert bench.sweep().expired_leases == 2
    assert bench.progress.lost_leases == 2
    bench.later(-3_600_000)
    bench.sweep()
    bench.later(LEASE_MS + 1)
    assert bench.sweep().expired_leases == 2
    assert len(bench.sweep().tickets) <= 4
    order = [bench.claim(f"v{i}").batch for i in range(6)]
    assert order[-2:] == [4, 5]


def tickets_that_are_lost_are_replaced_and_old_ones_are_worth_nothing(url: str) -> None:
    bench = Bench(url, 1, 1, 1)
    assert len(bench.tickets) == 3
    assert bench.sweep().tickets == ()
    bench.later(5_001)
    fresh = bench.sweep().tickets
    assert len(fresh) == 3
    assert bench.claim(ticket=bench.tickets[0]) is Nothing.RETIRED
    assert isinstance(bench.claim(ticket=fresh[0]), Lease)
    assert bench.sweep().tickets == ()


def a_cancelled_job_ends_with_what_really_ran(url: str) -> None:
    bench = Bench(url, 2, 2, 2, 2)
    bench.ledger.seal(bench.job, 1)
    ran, died, delayed = bench.claim("a"), bench.claim("b"), bench.claim("c")
    bench.commit(delayed, hand_back=True, delay_ms=10**6)
    bench.ledger.cancel(bench.job)
    assert bench.claim("d") is Nothing.GONE
    assert bench.ledger.renew([ran], lease_ms=LEASE_MS) == [None]
    assert bench.commit(ran, 0, hand_back=True).cancel_requested
    bench.commit(died, 0)
    bench.later(LEASE_MS + 1)
    bench.sweep()
    progress = bench.progress
    assert progress.state is JobState.CANCELLED
    assert (progress.outcomes[Outcome.SUCCEEDED], progress.outcomes[Outcome.CANCELLED]) == (2, 6)


def a_held_job_hands_out_nothing(url: str) -> None:
    bench = Bench(url, 1, 1)
    for hold in (bench.ledger.pause, lambda job: bench.ledger.park(job, "why")):
        bench.twice(lambda hold=hold: hold(bench.job) and None)
        assert bench.claim() is Nothing.PAUSED
        assert bench.sweep().tickets == ()
        bench.ledger.resume(bench.job)
    assert isinstance(bench.claim(), Lease)


def a_silent_producer_keeps_no_job_open(url: str) -> None:
    bench = Bench(url, 2, silent_s=60)
    bench.later(50_000)
    assert bench.ledger.feed(bench.job)
    bench.later(50_000)
    bench.sweep()
    assert bench.progress.state is JobState.OPEN
    bench.append(1, 2)
    bench.later(50_000)
    bench.sweep()
    assert bench.progress.state is JobState.OPEN
    bench.later(11_000)
    bench.sweep()
    stands = bench.progress
    assert (stands.state, stands.cut_short) == (JobState.SEALED, True)
    try:
        bench.append(2, 2)
    except JobEnded:
        pass
    else:
        raise AssertionError("a chunk for a job that was cut short")
    for _ in range(2):
        bench.commit(bench.claim(), 0, 1)
    assert bench.progress.state is JobState.DONE
    opened = bench.ledger.open(JobSpec(job_id=bench.job, task="t", ttl_s=100, silent_s=60))
    assert (opened.sealed, opened.next_chunk) == (False, 2)
    assert bench.client.pttl(keys.job_key(bench.job, "meta")) > 100_000
    bench.append(2, 2)
    bench.ledger.seal(bench.job, 3)
    stands = bench.progress
    assert (stands.state, stands.cut_short, stands.pending) == (JobState.SEALED, False, 2)
    for name in bench.state():
        assert bench.client.pttl(keys.job_key(bench.job, name)) > 100_000


def counters_are_a_recount(url: str) -> None:
    bench = Bench(url, *(4,) * 40)
    bench.ledger.seal(bench.job, 1)
    for number in range(40):
        lease = bench.claim()
        stats = {"running:7": 2, "running_min_ns": 50 + abs(number - 5), "running_max_ns": number, "running_sum_ns": 5}
        bench.commit(lease, 0, 1, outcome=Outcome.FAILED, retries=3, errors={"E": 2}, failures=b"f", stats=stats)
        bench.commit(lease, 2, 3, results=b"r")
    progress, stats = bench.progress, bench.ledger.stats(bench.job)
    assert (progress.outcomes[Outcome.FAILED], progress.outcomes[Outcome.SUCCEEDED]) == (80, 80)
    assert (progress.attempts, progress.retries, progress.batches_done) == (160, 120, 40)
    assert bench.ledger.errors(bench.job) == {"E": 80}
    assert (stats["running:7"], stats["running_sum_ns"], stats["running_min_ns"], stats["running_max_ns"]) == (
        80,
        200,
        50,
        39,
    )
    state = bench.state()
    assert (len(state["results"]), len(state["dead"])) == (40, 40)
    assert progress.state is JobState.DONE
    for name in state:
        assert 0 < bench.client.pttl(keys.job_key(bench.job, name)) <= 100_000


SCENARIOS: tuple[Callable[[str], None], ...] = (
    chunks_are_written_once_and_in_order,
    the_mark_holds,
    only_the_holder_writes,
    what_is_handed_back_goes_on_where_it_stopped,
    leases_end_by_the_clock_alone,
    tickets_that_are_lost_are_replaced_and_old_ones_are_worth_nothing,
    a_cancelled_job_ends_with_what_really_ran,
    a_held_job_hands_out_nothing,
    a_silent_producer_keeps_no_job_open,
    counters_are_a_recount,
    the_model_is_followed,
)
