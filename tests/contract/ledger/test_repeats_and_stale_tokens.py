"""Every request may be executed twice or lose its reply; every stale token is refused and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from tidegate.ledger.port import Lease, Settlement, Token
from tidegate.model.job import BatchPayload, JobSpec, new_job_id
from tidegate.model.outcome import Outcome

LEASE_MS = 10_000


class Lossy:
    """An interceptor: the first reply of each request is lost after the server executed it."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self.look = look
        self.lost: list[str] = []
        self.states: list[Any] = []
        self.replies: list[Any] = []

    def __call__(self, name: str, send: Callable[[], Any]) -> Any:
        reply = send()
        self.replies.append(reply)
        self.states.append(self.look())
        if len(self.replies) % 2:
            self.lost.append(name)
            raise RedisTimeoutError("the reply was lost")
        return reply


def _holding(desk):
    job_id = desk.job(sizes=(10, 10, 10))
    return job_id, desk.claim(job_id)


def _open(desk):
    spec = JobSpec(job_id=new_job_id(), task="t")
    desk.jobs.append(spec.job_id)
    return spec.job_id, lambda: desk.ledger.open(spec)


def _append(desk):
    job_id = desk.job(sizes=(5,), sealed=False)
    return job_id, lambda: desk.ledger.append(job_id, 1, [BatchPayload(3, b"abc"), BatchPayload(2, b"de")])


def _seal(desk):
    job_id = desk.job(sizes=(5,), sealed=False)
    return job_id, lambda: desk.ledger.seal(job_id, 1)


def _claim(desk):
    job_id = desk.job()
    ticket = desk.tickets[job_id][0]
    return job_id, lambda: desk.ledger.claim(job_id, ticket=ticket, claimer="c", nonce="abc", lease_ms=LEASE_MS)


def _claim_of_nothing(desk):
    job_id = desk.job(sizes=(5,))
    ticket = desk.tickets[job_id][0]
    desk.claim(job_id)
    return job_id, lambda: desk.ledger.claim(job_id, ticket=ticket, claimer="c", nonce="abc", lease_ms=LEASE_MS)


def _commit(desk):
    job_id, lease = _holding(desk)
    everything = Settlement(
        settled=10, outcomes={Outcome.SUCCEEDED: 9, Outcome.FAILED: 1}, executions=12, retries=2, results=b"r",
        failures=b"f", traces={"a": "b"}, errors={"E": 1}, stats={"running:1": 10, "running_min_ns": 1},
    )  # fmt: skip
    return job_id, lambda: desk.ledger.commit(lease, everything, nonce="abc", lease_ms=LEASE_MS)


def _commit_and_claim(desk):
    job_id, lease = _holding(desk)
    done = Settlement(settled=10, outcomes={Outcome.SUCCEEDED: 10}, executions=10, results=b"r")
    ticket = desk.tickets[job_id][0]
    return job_id, lambda: desk.ledger.commit(
        lease, done, nonce="abc", lease_ms=LEASE_MS, claim_next=True, ticket=ticket
    )


def _commit_part(desk):
    job_id, lease = _holding(desk)
    some = Settlement(
        settled=1, bits=b"\x02\x00", outcomes={Outcome.SUCCEEDED: 1}, executions=1, stats={"running:1": 1}
    )
    return job_id, lambda: desk.ledger.commit(lease, some, nonce="abc", lease_ms=LEASE_MS)


def _hand_back(desk):
    job_id, lease = _holding(desk)
    back = Settlement(settled=1, bits=b"\x02\x00", outcomes={Outcome.SUCCEEDED: 1}, executions=1, hand_back=True)
    return job_id, lambda: desk.ledger.commit(lease, back, nonce="abc", lease_ms=LEASE_MS)


def _hand_back_for_later(desk):
    job_id, lease = _holding(desk)
    back = Settlement(settled=0, hand_back=True, delay_ms=5000, attempts=b"\x01" * 10)
    return job_id, lambda: desk.ledger.commit(lease, back, nonce="abc", lease_ms=LEASE_MS)


def _last_commit(desk):
    job_id = desk.job(sizes=(3,))
    lease = desk.claim(job_id)
    done = Settlement(settled=3, outcomes={Outcome.SUCCEEDED: 3}, executions=3)
    return job_id, lambda: desk.ledger.commit(lease, done, nonce="abc", lease_ms=LEASE_MS)


def _sweep(desk):
    job_id, _ = _holding(desk)
    desk.skew(20_000)
    return job_id, lambda: desk.ledger.sweep(job_id, slots=4, stall_ms=5000)


def _pause(desk):
    job_id = desk.job()
    return job_id, lambda: desk.ledger.pause(job_id)


def _park(desk):
    job_id = desk.job()
    return job_id, lambda: desk.ledger.park(job_id, "why")


def _resume(desk):
    job_id = desk.job()
    desk.ledger.pause(job_id)
    for ticket in desk.tickets[job_id]:
        desk.try_claim(job_id, ticket=ticket)
    return job_id, lambda: desk.ledger.resume(job_id)


def _cancel(desk):
    job_id, _ = _holding(desk)
    return job_id, lambda: desk.ledger.cancel(job_id, "why")


EVERY = [
    _open, _append, _seal, _claim, _claim_of_nothing, _commit, _commit_and_claim, _commit_part, _hand_back,
    _hand_back_for_later, _last_commit, _sweep, _pause, _park, _resume, _cancel,
]  # fmt: skip


#: `open` says whether it was this call that did it; times in `sweep` and `progress` are those of the call.
SAME_REPLY = ("claim", "commit", "append", "resume", "hold", "renew", "touch_ticket", "cancel", "seal")


@pytest.mark.parametrize("make", EVERY, ids=lambda make: make.__name__[1:])
def test_executed_twice_with_the_first_reply_lost_it_answers_the_same_and_changes_nothing(desk, make):
    job_id, call = make(desk)
    before = desk.dump(job_id)
    lossy = Lossy(lambda: desk.dump(job_id))
    desk.ledger._caller.interceptor = lossy
    call()
    desk.ledger._caller.interceptor = None
    assert lossy.lost, "the fault happened"
    assert any(state != before for state in lossy.states), "the request did something"
    for first, second in zip(lossy.states[::2], lossy.states[1::2], strict=True):
        assert first == second
    for name, first, second in zip(lossy.lost, lossy.replies[::2], lossy.replies[1::2], strict=True):
        if name in SAME_REPLY:
            assert first == second, name


@pytest.mark.parametrize("make", [_claim, _commit_and_claim, _hand_back, _append], ids=lambda make: make.__name__[1:])
def test_called_again_by_the_caller_it_answers_the_same(desk, make):
    job_id, call = make(desk)
    first = call()
    before = desk.dump(job_id)
    assert call() == first
    assert desk.dump(job_id) == before


def test_a_claim_repeated_after_its_lease_was_lost_gets_nothing_rather_than_another_batch(desk):
    job_id, call = _claim(desk)
    assert isinstance(call(), Lease)
    desk.skew(20_000)
    desk.sweep(job_id)
    before = desk.dump(job_id)
    assert not isinstance(call(), Lease)
    assert desk.dump(job_id) == before


def _another_epoch(desk, lease):
    return replace(lease, token=Token(lease.token.epoch + 1, lease.token.nonce))


def _another_nonce(desk, lease):
    """The same integer, granted again by a server that went back in time."""
    return replace(lease, token=Token(lease.token.epoch, "forged"))


def _another_batch(desk, lease):
    return replace(lease, batch=lease.batch + 1)


def _no_such_batch(desk, lease):
    return replace(lease, batch=999)


def _settled(desk, lease):
    desk.finish(lease)
    return lease


def _handed_back(desk, lease):
    desk.commit(lease, Settlement(settled=0, hand_back=True))
    return lease


def _expired(desk, lease):
    desk.skew(20_000)
    desk.sweep(lease.job_id)
    return lease


def _taken_over(desk, lease):
    _expired(desk, lease)
    assert desk.claim(lease.job_id, "other").batch == lease.batch
    return lease


def _taken_over_by_the_same_claimer(desk, lease):
    _expired(desk, lease)
    assert desk.claim(lease.job_id, lease.claimer).batch == lease.batch
    return lease


def _of_an_ended_job(desk, lease):
    desk.finish(lease)
    for _ in range(2):
        desk.finish(desk.claim(lease.job_id))
    assert desk.ledger.progress(lease.job_id).ended
    return lease


STALE = [
    _another_epoch, _another_nonce, _another_batch, _no_such_batch, _settled, _handed_back, _expired, _taken_over,
    _taken_over_by_the_same_claimer, _of_an_ended_job,
]  # fmt: skip


@pytest.mark.parametrize("make", STALE, ids=lambda make: make.__name__[1:])
def test_a_stale_token_writes_nothing_and_is_counted(desk, settle, make):
    job_id, lease = _holding(desk)
    stale = make(desk, lease)
    before, counted = desk.without_counts_of_refusals(job_id), desk.ledger.progress(job_id).stale_refused
    ticket = desk.tickets[job_id][-1]
    assert desk.try_commit(stale, settle.whole(stale), claim_next=True, ticket=ticket).reason == "token"
    assert desk.try_commit(stale, settle.part(stale, [1])).reason == "token"
    assert desk.try_commit(stale, Settlement(settled=0, hand_back=True)).reason == "token"
    assert desk.ledger.renew([stale], lease_ms=LEASE_MS) == [False]
    assert desk.without_counts_of_refusals(job_id) == before
    assert desk.ledger.progress(job_id).stale_refused == counted + 4


def test_a_token_is_not_reused_after_the_server_went_back_in_time(desk, settle):
    """Roll every key of the job back to before a claim; the integer is granted again, the token is not."""
    job_id = desk.job(sizes=(4, 4))
    keys = {key: desk.client.dump(key) for key in desk.client.keys(f"tg:{{{job_id}}}:*")}
    lost = desk.claim(job_id, "a")
    desk.client.delete(*desk.client.keys(f"tg:{{{job_id}}}:*"))
    for key, value in keys.items():
        desk.client.restore(key, 0, value)
    regranted = desk.claim(job_id, "b")
    assert (regranted.batch, regranted.token.epoch) == (lost.batch, lost.token.epoch)
    before = desk.without_counts_of_refusals(job_id)
    assert desk.try_commit(lost, settle.whole(lost)).reason == "token"
    assert desk.ledger.renew([lost], lease_ms=1) == [False]
    assert desk.without_counts_of_refusals(job_id) == before
    desk.finish(regranted)
