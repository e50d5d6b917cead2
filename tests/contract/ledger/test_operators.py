"""cancel, pause, park and resume: each may be repeated, and none of them loses or invents an item."""

from __future__ import annotations

import pytest

from tidegate.errors import JobEnded, JobNotFound
from tidegate.ledger.port import Nothing, Settlement
from tidegate.model.job import new_job_id
from tidegate.model.outcome import JobState


def test_cancelling_a_job_that_nobody_runs_ends_it_at_once(desk):
    job_id = desk.job(sizes=(10, 5))
    progress = desk.ledger.cancel(job_id, "wrong list")
    assert (progress.state, progress.outcomes["cancelled"], progress.reason) == (JobState.CANCELLED, 15, "wrong list")
    assert desk.try_claim(job_id) is Nothing.GONE
    assert desk.ledger.active_jobs() == []


def test_cancelling_again_changes_nothing(desk):
    job_id = desk.job()
    desk.ledger.cancel(job_id, "first")
    before = desk.dump(job_id)
    desk.ledger.cancel(job_id, "second")
    assert desk.dump(job_id) == before


def test_a_job_with_more_batches_than_one_page_is_cancelled_whole(desk):
    job_id = desk.job(sizes=(1,) * 1234)
    assert desk.ledger.cancel(job_id).outcomes["cancelled"] == 1234


def test_what_really_ran_is_committed_after_a_cancellation_and_the_rest_is_cancelled(desk, settle):
    job_id = desk.job(sizes=(10, 10, 10))
    whole, part = desk.claim(job_id, "a"), desk.claim(job_id, "b")
    progress = desk.ledger.cancel(job_id)
    assert (progress.cancelling, progress.ended, progress.pending) == (True, False, 20)
    assert desk.ledger.renew([whole, part], lease_ms=1000) == [None, None]
    assert desk.commit(whole, settle.whole(whole), claim_next=True, ticket=1).next is Nothing.GONE
    answer = desk.commit(part, settle.part(part, [0, 1], hand_back=True))
    assert (answer.cancel_requested, answer.job_done) == (True, True)
    progress = desk.ledger.progress(job_id)
    assert progress.state is JobState.CANCELLED
    assert (progress.outcomes["succeeded"], progress.outcomes["cancelled"]) == (12, 18)


def test_a_cancelled_job_ends_although_its_last_holder_died(desk):
    job_id = desk.job(sizes=(10, 10))
    desk.claim(job_id)
    desk.ledger.cancel(job_id)
    desk.skew(10_001)
    assert desk.sweep(job_id).finished
    assert desk.ledger.progress(job_id).outcomes["cancelled"] == 20


def test_delayed_batches_are_cancelled_too(desk):
    job_id = desk.job(sizes=(10,))
    desk.commit(desk.claim(job_id), Settlement(settled=0, hand_back=True, delay_ms=10**9))
    assert desk.ledger.cancel(job_id).state is JobState.CANCELLED


def test_a_job_that_is_still_submitted_is_cancelled_and_takes_nothing_more(desk):
    job_id = desk.job(sizes=(10,), sealed=False)
    assert desk.ledger.cancel(job_id).state is JobState.CANCELLED
    with pytest.raises(JobEnded, match="cancelled"):
        desk.append(job_id, 1, (1,))
    assert desk.ledger.seal(job_id, 1).state is JobState.CANCELLED


def test_a_done_job_stays_done(desk):
    job_id = desk.job(sizes=(1,))
    desk.finish(desk.claim(job_id))
    before = desk.dump(job_id)
    for change in (desk.ledger.cancel, desk.ledger.pause, desk.ledger.resume):
        change(job_id)
    desk.ledger.park(job_id, "why")
    assert desk.dump(job_id) == before


def test_a_paused_job_hands_out_nothing_but_lets_leases_finish(desk):
    job_id = desk.job(sizes=(1, 1, 1))
    lease = desk.claim(job_id)
    assert desk.ledger.pause(job_id).paused
    assert desk.try_claim(job_id, "b") is Nothing.PAUSED
    assert desk.sweep(job_id).tickets == ()
    assert desk.finish(lease).batch_done
    assert not desk.ledger.resume(job_id)[0].paused
    for _ in range(2):
        desk.finish(desk.claim(job_id))
    assert desk.ledger.progress(job_id).state is JobState.DONE


def test_pausing_and_resuming_again_change_nothing(desk):
    job_id = desk.job()
    desk.ledger.pause(job_id)
    before = desk.dump(job_id)
    desk.ledger.pause(job_id)
    assert desk.dump(job_id) == before
    desk.ledger.resume(job_id)
    before = desk.dump(job_id)
    _, tickets = desk.ledger.resume(job_id)
    assert tickets == ()
    after = desk.dump(job_id)
    assert {**after, "seen": 0} == {**before, "seen": 0}


def test_a_parked_job_says_why_and_goes_on_after_resume(desk):
    job_id = desk.job()
    desk.ledger.park(job_id, "task 'x' is not registered")
    progress = desk.ledger.progress(job_id)
    assert (progress.state, progress.reason) == (JobState.PARKED, "task 'x' is not registered")
    assert desk.try_claim(job_id) is Nothing.PAUSED
    progress, _tickets = desk.ledger.resume(job_id)
    assert (progress.state, progress.reason) == (JobState.SEALED, "")


def test_a_paused_job_can_be_cancelled(desk):
    job_id = desk.job()
    desk.ledger.pause(job_id)
    assert desk.ledger.cancel(job_id).state is JobState.CANCELLED


def test_verbs_on_a_job_that_never_was_say_so(desk):
    for verb in (desk.ledger.cancel, desk.ledger.pause, desk.ledger.resume):
        with pytest.raises(JobNotFound):
            verb(new_job_id())
    desk.ledger.park(new_job_id(), "no error: a worker cannot do anything about it")
