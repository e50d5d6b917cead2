"""Partial commits, giving back, and delay: a later holder goes on where the last one stopped."""

from __future__ import annotations

import itertools

from tidegate.ledger.port import Lease, Nothing, Refused, Settlement
from tidegate.model.outcome import JobState, Outcome


def test_parts_of_a_batch_are_counted_as_they_come_and_the_last_ends_it(desk, settle):
    job_id = desk.job(sizes=(20,))
    lease = desk.claim(job_id)
    assert not desk.commit(lease, settle.part(lease, range(7))).batch_done
    assert desk.ledger.progress(job_id).done == 7
    assert not desk.commit(lease, settle.part(lease, [19, 12])).batch_done
    last = desk.commit(lease, settle.part(lease, [*range(7, 12), *range(13, 19)]))
    assert (last.batch_done, last.job_done) == (True, True)
    assert desk.ledger.progress(job_id).done == 20


def test_an_item_is_never_settled_twice(desk, settle):
    job_id = desk.job(sizes=(20,))
    lease = desk.claim(job_id)
    desk.commit(lease, settle.part(lease, range(7)))
    before = desk.without_counts_of_refusals(job_id)
    for positions in ([6], [0, 19], range(20)):
        assert desk.try_commit(lease, settle.part(lease, positions)) == Refused("overlap")
    assert desk.try_commit(lease, settle.whole(lease)) == Refused("overlap")
    assert desk.without_counts_of_refusals(job_id) == before
    assert desk.ledger.progress(job_id).stale_refused == 4


def test_a_batch_handed_back_resumes_from_its_bitmap_with_its_attempts_and_crashes(desk, settle):
    job_id = desk.job(sizes=(10, 3))
    lease = desk.claim(job_id)
    attempts, crashes = bytes(range(10)), bytes([0, 2] * 5)
    answer = desk.commit(lease, settle.part(lease, [0, 9], hand_back=True, attempts=attempts, crashes=crashes))
    assert not answer.batch_done
    again = desk.claim(job_id, "w2/0")
    assert (again.batch, again.done_bits, again.attempts, again.crashes) == (0, b"\x01\x02", attempts, crashes)
    assert again.payload == lease.payload
    assert again.token.epoch > lease.token.epoch
    assert desk.commit(again, settle.part(again, range(1, 9))).batch_done


def test_handing_back_without_anything_done_changes_no_outcome(desk):
    job_id = desk.job(sizes=(10,))
    lease = desk.claim(job_id)
    desk.commit(lease, Settlement(settled=0, hand_back=True))
    progress = desk.ledger.progress(job_id)
    assert (progress.pending, progress.done, progress.ready_batches, progress.running_batches) == (10, 0, 1, 0)


def test_a_batch_handed_back_comes_before_all_others_and_gets_a_ticket(desk, settle):
    desk.ledger.heartbeat("w", slots=2, ttl_ms=60_000, facts={})
    job_id = desk.job(sizes=(1, 1))
    first, _second = desk.claim(job_id, "a"), desk.claim(job_id, "b")
    for ticket in desk.tickets[job_id]:
        assert desk.try_claim(job_id, "c", ticket=ticket) is Nothing.EMPTY
    tickets = desk.commit(first, Settlement(settled=0, hand_back=True)).tickets
    assert len(tickets) == 1
    assert desk.try_claim(job_id, "c", ticket=tickets[0]).batch == 0


def test_a_delayed_batch_waits_for_its_time_and_the_sweep(desk):
    job_id = desk.job(sizes=(5,))
    lease = desk.claim(job_id)
    desk.commit(lease, Settlement(settled=0, hand_back=True, delay_ms=60_000, attempts=b"\x01" * 5))
    progress = desk.ledger.progress(job_id)
    assert (progress.delayed_batches, progress.ready_batches, progress.pending) == (1, 0, 5)
    assert desk.sweep(job_id).due_batches == 0
    desk.skew(60_001)
    swept = desk.sweep(job_id)
    assert swept.due_batches == 1
    assert desk.claim(job_id).attempts == b"\x01" * 5


def test_handing_back_the_last_items_settled_is_just_the_end(desk, settle):
    job_id = desk.job(sizes=(4,))
    lease = desk.claim(job_id)
    answer = desk.commit(lease, Settlement(settled=4, outcomes={Outcome.FAILED: 4}, hand_back=True, delay_ms=99))
    assert answer.job_done
    assert desk.ledger.progress(job_id).state is JobState.DONE


def test_a_partial_commit_prolongs_the_lease(desk, settle):
    job_id = desk.job(sizes=(10,))
    lease = desk.claim(job_id)
    for position in range(5):
        desk.skew(9_000)
        desk.commit(lease, settle.part(lease, [position]))
        assert desk.sweep(job_id).expired_leases == 0


def test_any_split_of_a_batch_into_parts_adds_up(desk, settle):
    sizes = [1, 7, 8, 9, 16, 4097]
    job_id = desk.job(sizes=sizes)
    for number, size in enumerate(sizes):
        lease = desk.claim(job_id)
        assert (lease.batch, lease.items) == (number, size)
        parts = [range(start, size, 3) for start in range(min(3, size))]
        answers = [desk.commit(lease, settle.part(lease, positions)) for positions in parts]
        assert [answer.batch_done for answer in answers] == [False] * (len(parts) - 1) + [True]
    assert desk.ledger.progress(job_id).done == sum(sizes)


def test_many_holders_one_after_the_other_settle_each_item_once(desk, settle):
    job_id = desk.job(sizes=(6,))
    for position in itertools.count():
        lease = desk.claim(job_id, f"w{position}")
        assert isinstance(lease, Lease)
        answer = desk.commit(lease, settle.part(lease, [position], hand_back=True))
        if answer.batch_done:
            break
    assert position == 5
    assert desk.ledger.progress(job_id).attempts == 6
