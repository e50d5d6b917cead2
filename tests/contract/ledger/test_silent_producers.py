"""A job whose producer died before the seal ends all the same, says that it was cut short, and can be gone on with."""

from __future__ import annotations

import re

import pytest

from tidegate.errors import JobEnded
from tidegate.model.job import JobSpec
from tidegate.model.outcome import JobState

SILENT_S = 60.0
LATER_MS = 61_000


def _reopen(desk, job_id):
    return desk.ledger.open(JobSpec(job_id=job_id, task="mod:task", silent_s=SILENT_S))


def _cut(desk, sizes=(10,)):
    job_id = desk.job(sizes=sizes, sealed=False, silent_s=SILENT_S)
    desk.skew(LATER_MS)
    desk.sweep(job_id)
    return job_id


def test_a_job_is_not_cut_short_while_its_producer_speaks(desk):
    """Appending and saying that one lives both count, however long the source takes."""
    job_id = desk.job(sizes=(10,), sealed=False, silent_s=SILENT_S)
    desk.skew(50_000)
    assert desk.ledger.feed(job_id) is True
    desk.skew(50_000)
    desk.append(job_id, 1, (10,))
    desk.skew(50_000)
    desk.sweep(job_id)
    assert desk.ledger.progress(job_id).state is JobState.OPEN


def test_silence_means_nothing_for_a_job_that_is_not_watched(desk):
    job_id = desk.job(sizes=(10,), sealed=False)
    desk.skew(20 * 86_400_000)
    desk.sweep(job_id)
    assert desk.ledger.progress(job_id).state is JobState.OPEN


def test_after_silence_the_items_that_came_are_run_and_the_job_ends_and_says_so(desk):
    job_id = _cut(desk)
    stands = desk.ledger.progress(job_id)
    assert (stands.state, stands.cut_short) == (JobState.SEALED, True)
    assert re.search(r"silent for 6\d s after 10 items", stands.reason)
    desk.finish(desk.claim(job_id))
    stands = desk.ledger.progress(job_id)
    assert (stands.state, stands.cut_short, stands.done) == (JobState.DONE, True, 10)
    desk.check()


def test_a_job_without_anything_left_ends_in_the_sweep_that_cuts_it_short(desk):
    for sizes in ((), (10,)):
        job_id = desk.job(sizes=sizes, sealed=False, silent_s=SILENT_S)
        if sizes:
            desk.finish(desk.claim(job_id))
        desk.skew(LATER_MS)
        assert desk.sweep(job_id).finished
        assert desk.ledger.progress(job_id).state is JobState.DONE


def test_sweeping_again_changes_nothing(desk):
    job_id = _cut(desk)
    before = desk.dump(job_id)["meta"]
    desk.sweep(job_id)
    after = desk.dump(job_id)["meta"]
    assert {name: value for name, value in before.items() if after[name] != value} == {}


def test_a_chunk_for_a_job_that_was_cut_short_is_refused_until_it_is_opened_again(desk):
    job_id = _cut(desk)
    with pytest.raises(JobEnded, match="cut short"):
        desk.append(job_id, 1, (5,))
    opened = _reopen(desk, job_id)
    assert (opened.created, opened.next_chunk, opened.sealed, opened.items) == (False, 1, False, 10)
    desk.append(job_id, 1, (5,))
    desk.ledger.seal(job_id, 2)
    stands = desk.ledger.progress(job_id)
    assert (stands.cut_short, stands.reason, stands.total) == (False, "", 15)
    for _ in range(2):
        desk.finish(desk.claim(job_id))
    assert desk.ledger.progress(job_id).state is JobState.DONE
    desk.check()


def test_even_a_job_that_ended_goes_on_and_lives_and_is_swept_as_before(desk):
    job_id = _cut(desk)
    desk.finish(desk.claim(job_id))
    assert job_id not in desk.ledger.active_jobs()
    _reopen(desk, job_id)
    assert job_id in desk.ledger.active_jobs()
    assert all(desk.client.pttl(name) > 86_400_000 for name in desk.client.keys(f"tg:{{{job_id}}}:*"))
    desk.append(job_id, 1, (5,))
    desk.ledger.seal(job_id, 2)
    desk.finish(desk.claim(job_id))
    stands = desk.ledger.progress(job_id)
    assert (stands.state, stands.done) == (JobState.DONE, 15)
    desk.check()


def test_a_seal_that_comes_late_completes_the_job(desk):
    job_id = _cut(desk)
    stands = desk.ledger.seal(job_id, 1)
    assert (stands.state, stands.cut_short, stands.reason) == (JobState.SEALED, False, "")


def test_a_cancelled_job_stays_cancelled(desk):
    job_id = _cut(desk)
    desk.ledger.cancel(job_id, "enough")
    assert _reopen(desk, job_id).sealed
    assert desk.ledger.progress(job_id).state is JobState.CANCELLED


def test_a_clock_that_jumps_back_does_not_make_a_producer_immortal(desk):
    job_id = desk.job(sizes=(10,), sealed=False, silent_s=SILENT_S)
    desk.skew(-3_600_000)
    desk.sweep(job_id)
    desk.skew(LATER_MS)
    desk.sweep(job_id)
    assert desk.ledger.progress(job_id).cut_short
