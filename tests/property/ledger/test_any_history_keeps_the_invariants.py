"""Any order of requests, repeats, losses, clock jumps and rollbacks leaves every invariant of the ledger standing.

Hypothesis makes up histories and runs them against the real scripts on a real server. After every step the job is recounted
from its keys and compared with what a plain dictionary says. When a history is over, a calm worker finishes the job: it
must end, every item must have exactly one outcome and one result, and nothing may be left behind.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tidegate.errors import JobEnded, LedgerError, LedgerLost, SubmissionConflict
from tidegate.ledger import keys
from tidegate.ledger.audit import audit, dump
from tidegate.ledger.port import Committed, Cursor, Lease, Refused, Settlement, Token
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import BatchPayload, JobSpec, new_job_id
from tidegate.model.outcome import Outcome

LEASE_MS = 10_000
SLOTS = ("a/0", "a/1", "b/0")
REAL = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED)


class History(RuleBasedStateMachine):
    """One job, three slots of two workers, an operator, a sweeper, a clock and a server that may go back in time."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = RedisLedger.from_url(self.url, skew_ms=1_800_000_000_000)  # time moves only when it is told to
        self.client = self.ledger.client
        self.client.flushall()
        self.numbers = itertools.count(1)
        self.job_id = new_job_id()
        self.spec = JobSpec(job_id=self.job_id, task="t", ttl_s=1000, max_pending_batches=8)
        # What a plain dictionary knows; it goes back in time with the server.
        self.sizes: list[int] = []
        self.chunks = 0
        self.settled: dict[int, Outcome] = {}
        self.executions = 0
        # What cannot go back: what workers believe, and what is on the wire.
        self.leases: list[Lease] = []
        self.tickets: list[int] = []
        self.sent: list[Callable[[], Any]] = []
        self.saved: tuple[Any, ...] | None = None

    # -- short words ------------------------------------------------------------------------------------------
    def nonce(self) -> str:
        return f"n{next(self.numbers)}"

    def repeatable(self, call: Callable[[], Any]) -> Any:
        """Send a request; it may be sent again at any later time."""
        answer = call()
        before = dump(self.client, self.job_id)
        assert call() == answer, "repeated at once, it answers the same"
        after = dump(self.client, self.job_id)
        for state in (before, after):
            state.get("meta", {}).pop(b"stale_refused", None)
        assert before == after, "repeated at once, it changes nothing"
        self.sent.append(call)
        return answer

    def first_of(self, batch: int) -> int:
        return sum(self.sizes[:batch])

    def ended(self) -> bool:
        return self.ledger.progress(self.job_id).ended

    def holder(self, batch: int) -> Token | None:
        """Who holds a batch, by the server."""
        value = dump(self.client, self.job_id).get("lease", {}).get(str(batch).encode())
        return None if value is None else Token(int(value.split(b":")[0]), value.split(b":")[1].decode())

    # -- the producer --------------------------------------------------------------------------------------------
    @initialize()
    def open(self) -> None:
        assert self.ledger.open(self.spec).created

    @rule(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4))
    def append(self, sizes: list[int]) -> None:
        chunk = self.chunks
        batches = [BatchPayload(size, b"p" * (size + i)) for i, size in enumerate(sizes)]
        try:
            appended = self.repeatable(lambda: self.ledger.append(self.job_id, chunk, batches))
        except JobEnded:
            return
        if not appended.full:
            self.sizes += sizes
            self.chunks += 1
            self.tickets += appended.tickets

    @rule()
    def seal(self) -> None:
        self.ledger.seal(self.job_id, self.chunks)
        self.ledger.seal(self.job_id, self.chunks)

    @rule(ahead=st.integers(1, 3))
    def append_with_a_gap(self, ahead: int) -> None:
        try:
            self.ledger.append(self.job_id, self.chunks + ahead, [BatchPayload(1, b"x")])
        except (SubmissionConflict, JobEnded):
            return
        raise AssertionError("a gap was accepted")

    # -- workers -------------------------------------------------------------------------------------------------
    @rule(slot=st.sampled_from(SLOTS), pick=st.integers(0, 10))
    def claim(self, slot: str, pick: int) -> None:
        ticket = self.tickets[pick % len(self.tickets)] if self.tickets else pick
        nonce = self.nonce()
        answer = self.repeatable(
            lambda: self.ledger.claim(self.job_id, ticket=ticket, claimer=slot, nonce=nonce, lease_ms=LEASE_MS)
        )
        if isinstance(answer, Lease):
            self.granted(answer)

    def granted(self, lease: Lease) -> None:
        assert lease.token not in [other.token for other in self.leases], "a token was granted twice"
        assert self.holder(lease.batch) == lease.token
        assert (lease.items, lease.first_index) == (self.sizes[lease.batch], self.first_of(lease.batch))
        done = {i for i in range(lease.items) if lease.done_bits and lease.done_bits[i // 8] >> i % 8 & 1}
        assert done == {i for i in range(lease.items) if lease.first_index + i in self.settled}
        self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(
        pick=st.integers(0, 10),
        mask=st.integers(0, 2**12 - 1),
        outcome=st.sampled_from(REAL),
        back=st.sampled_from([None, 0, 0, 20_000]),
        claim_next=st.booleans(),
    )
    def commit(self, pick: int, mask: int, outcome: Outcome, back: int | None, claim_next: bool) -> None:
        """Settle some items of any lease ever granted, whether it is still good or not."""
        lease = self.leases[-1 - pick % len(self.leases)]
        self.settle(lease, mask & (2**lease.items - 1), outcome, back, claim_next)

    def settle(self, lease: Lease, mask: int, outcome: Outcome, back: int | None, claim_next: bool) -> None:
        positions = [i for i in range(lease.items) if mask >> i & 1]
        bits = mask.to_bytes(-(-lease.items // 8), "little") if positions else b""
        settlement = Settlement(
            settled=len(positions), bits=bits, outcomes={outcome: len(positions)}, executions=len(positions),
            results=msgspec.msgpack.encode([lease.first_index + i for i in positions]), stats={"running:1": 1},
            hand_back=back is not None, delay_ms=back or 0,
            attempts=b"\x01" * lease.items if back is not None else b"",
        )  # fmt: skip
        ticket = self.tickets[-1] if self.tickets else 1
        nonce, held = self.nonce(), self.holder(lease.batch)
        answer = self.repeatable(
            lambda: self.ledger.commit(
                lease, settlement, nonce=nonce, lease_ms=LEASE_MS, claim_next=claim_next, ticket=ticket
            )
        )
        items = [lease.first_index + i for i in positions]
        if isinstance(answer, Refused):
            assert held != lease.token or any(item in self.settled for item in items), "a good token was refused"
            return
        assert held == lease.token, "a stale token was accepted"
        assert not any(item in self.settled for item in items), "an item was settled twice"
        self.settled |= dict.fromkeys(items, outcome)
        self.executions += len(items)
        self.tickets += answer.tickets
        if isinstance(answer.next, Lease):
            self.granted(answer.next)

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 10))
    def renew(self, pick: int) -> None:
        lease = self.leases[-1 - pick % len(self.leases)]
        good = self.holder(lease.batch) == lease.token
        assert self.ledger.renew([lease], lease_ms=LEASE_MS) in ([[True], [None]] if good else [[False]])

    @precondition(lambda self: self.leases)
    @rule(pick=st.integers(0, 10), epochs=st.integers(-1, 1), same_nonce=st.booleans())
    def forge(self, pick: int, epochs: int, same_nonce: bool) -> None:
        lease = self.leases[-1 - pick % len(self.leases)]
        token = Token(lease.token.epoch + epochs, lease.token.nonce if same_nonce else "forged")
        if token in [other.token for other in self.leases]:
            return
        forged = replace(lease, token=token)
        everything = Settlement(settled=lease.items, outcomes={Outcome.SUCCEEDED: lease.items})
        assert isinstance(self.ledger.commit(forged, everything, nonce=self.nonce(), lease_ms=1), Refused)
        assert self.ledger.renew([forged], lease_ms=1) == [False]

    @precondition(lambda self: self.tickets)
    @rule(pick=st.integers(0, 10))
    def touch_ticket(self, pick: int) -> None:
        ticket = self.tickets[pick % len(self.tickets)]
        assert self.ledger.touch_ticket(self.job_id, ticket) == self.ledger.touch_ticket(self.job_id, ticket)

    # -- the sweeper, the clock, the operator ----------------------------------------------------------------------
    @rule(limit=st.integers(1, 5), stall_ms=st.sampled_from([1, 5_000]))
    def sweep(self, limit: int, stall_ms: int) -> None:
        self.tickets += self.ledger.sweep(self.job_id, slots=3, stall_ms=stall_ms, limit=limit).tickets

    @rule(ms=st.sampled_from([100, 5_000, 11_000, 30_000, 3_600_000, -3_600_000]))
    def the_clock_moves(self, ms: int) -> None:
        self.ledger._caller.skew_ms += ms

    @rule(what=st.sampled_from(["pause", "park", "resume", "resume"]))
    def hold(self, what: str) -> None:
        match what:
            case "pause":
                self.ledger.pause(self.job_id)
            case "park":
                self.ledger.park(self.job_id, "why")
            case _:
                self.tickets += self.ledger.resume(self.job_id)[1]

    @rule(sure=st.integers(0, 9))
    def cancel(self, sure: int) -> None:
        if sure == 0:
            self.ledger.cancel(self.job_id, "why")

    # -- what may go wrong -------------------------------------------------------------------------------------------
    @precondition(lambda self: self.sent)
    @rule(pick=st.integers(0, 30))
    def a_request_arrives_again_much_later(self, pick: int) -> None:
        before = self.ledger.progress(self.job_id)
        try:
            answer = self.sent[-1 - pick % len(self.sent)]()
        except (LedgerError, LedgerLost):
            return
        after = self.ledger.progress(self.job_id)
        assert (after.outcomes, after.total, after.attempts) == (before.outcomes, before.total, before.attempts)
        lease = answer.next if isinstance(answer, Committed) else answer
        if isinstance(lease, Lease) and lease.token not in [other.token for other in self.leases]:
            self.granted(lease)

    @rule()
    def tickets_are_lost(self) -> None:
        self.tickets.clear()

    @rule()
    def the_server_forgets_its_scripts(self) -> None:
        self.client.script_flush()

    @rule()
    def the_server_saves(self) -> None:
        data = {key: (max(0, self.client.pttl(key)), self.client.dump(key)) for key in self.client.keys("*")}
        self.saved = copy.deepcopy((data, self.sizes, self.chunks, self.settled, self.executions))

    @precondition(lambda self: self.saved)
    @rule()
    def the_server_goes_back_in_time(self) -> None:
        data, self.sizes, self.chunks, self.settled, self.executions = copy.deepcopy(self.saved)
        self.client.flushall()
        for key, (ttl_ms, value) in data.items():
            self.client.restore(key, ttl_ms, value)
        self.sent.clear()  # an append that was rolled back is new when it comes again

    # -- what always holds -------------------------------------------------------------------------------------------
    @invariant()
    def every_count_agrees(self) -> None:
        assert audit(self.client, self.job_id) == []
        progress = self.ledger.progress(self.job_id)
        assert progress.total == sum(self.sizes)
        assert progress.attempts == self.executions
        for outcome in REAL:
            assert progress.outcomes[outcome] == sum(one is outcome for one in self.settled.values())

    @invariant()
    def every_key_is_known(self) -> None:
        known = {*keys.job_keys(self.job_id), keys.INCARNATION, keys.JOBS, keys.ACTIVE, keys.EXPIRING}
        assert set(self.client.keys()) <= known

    def teardown(self) -> None:
        try:
            self.finish_calmly()
        finally:
            self.ledger.close()

    def finish_calmly(self) -> None:
        """One worker and a server: the job must end, with one result for each item that ran."""
        self.ledger.seal(self.job_id, self.chunks)
        for _ in range(1000):
            if self.ended():
                break
            self.ledger._caller.skew_ms += 60_000
            window = [*self.ledger.resume(self.job_id)[1], *self.ledger.sweep(self.job_id, slots=3, stall_ms=1).tickets]
            for ticket in window:
                lease = self.ledger.claim(
                    self.job_id, ticket=ticket, claimer="calm", nonce=self.nonce(), lease_ms=LEASE_MS
                )
                if isinstance(lease, Lease):
                    self.granted(lease)
                    left = [i for i in range(lease.items) if lease.first_index + i not in self.settled]
                    self.settle(lease, sum(1 << i for i in left), Outcome.SUCCEEDED, None, False)
            self.every_count_agrees()
        assert self.ended(), "a worker and the server are up, and the job does not end"
        progress = self.ledger.progress(self.job_id)
        assert progress.done == progress.total == sum(self.sizes)
        assert progress.outcomes[Outcome.CANCELLED] == progress.total - len(self.settled)
        blocks = self.ledger.read_results(self.job_id, Cursor(), count=10_000)[0]
        items = [item for block in blocks for item in msgspec.msgpack.decode(block)]
        assert sorted(items) == sorted(self.settled)
        for key in keys.job_keys(self.job_id):
            assert self.client.pttl(key) == -2 or 0 < self.client.pttl(key) <= 1_000_000


def test_any_history_keeps_the_invariants(ledger_url: str) -> None:
    machine = type("History", (History,), {"url": ledger_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
