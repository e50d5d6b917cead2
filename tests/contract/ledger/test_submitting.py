"""open, append and seal: a submission is written once, in order, and stops at its marks."""

from __future__ import annotations

import pytest

from tidegate.errors import ConfigurationError, JobEnded, JobNotFound, SubmissionConflict
from tidegate.ledger import keys
from tidegate.model.job import BatchPayload, JobSpec, Origin, new_job_id
from tidegate.model.outcome import JobState


def test_a_new_job_is_open_and_empty(desk):
    job_id = desk.job(sizes=(), sealed=False)
    progress = desk.ledger.progress(job_id)
    assert (progress.state, progress.total, progress.pending, progress.task) == (JobState.OPEN, 0, 0, "mod:task")


def test_opening_again_finds_the_job_and_says_where_to_go_on(desk):
    job_id = desk.job(sizes=(10, 5), sealed=False)
    spec = desk.ledger.progress(job_id).spec
    again = desk.ledger.open(spec)
    assert (again.created, again.next_chunk, again.items, again.sealed) == (False, 1, 15, False)
    desk.ledger.seal(job_id, 1)
    assert desk.ledger.open(spec).sealed


def test_the_line_that_enqueued_does_not_make_another_job(desk):
    job_id = new_job_id()
    assert desk.ledger.open(JobSpec(job_id=job_id, task="t", origin=Origin("a.py", 1, "f"))).created
    assert not desk.ledger.open(JobSpec(job_id=job_id, task="t", origin=Origin("a.py", 9, "f"))).created


def test_another_task_under_the_same_id_is_a_conflict_and_changes_nothing(desk):
    job_id = desk.job()
    before = desk.dump(job_id)
    with pytest.raises(SubmissionConflict, match="new submission id"):
        desk.ledger.open(JobSpec(job_id=job_id, task="other"))
    assert desk.dump(job_id) == before


@pytest.mark.parametrize("job_id", ["", "with space", "a}b", "x" * 65, "new\nline", "end\n", "é"])
def test_an_id_that_could_break_a_key_is_refused_before_anything_is_written(desk, job_id):
    with pytest.raises(ConfigurationError, match="job id"):
        desk.ledger.open(JobSpec(job_id=job_id, task="t"))
    assert set(desk.client.keys()) <= {keys.INCARNATION}


def test_items_are_numbered_through_all_batches(desk):
    job_id = desk.job(sizes=(3, 4), sealed=False)
    desk.append(job_id, 1, (5,))
    desk.ledger.seal(job_id, 2)
    leases = [desk.claim(job_id, f"w/{i}") for i in range(3)]
    assert [(lease.batch, lease.first_index, lease.items) for lease in leases] == [(0, 0, 3), (1, 3, 4), (2, 7, 5)]
    assert [lease.payload for lease in leases] == [b"payload 0.0", b"payload 0.1", b"payload 1.0"]


def test_a_repeated_chunk_writes_nothing_and_gets_the_same_tickets(desk):
    job_id = desk.job(sizes=(), sealed=False)
    first = desk.append(job_id, 0, (10, 10))
    before = desk.dump(job_id)
    assert desk.append(job_id, 0, (10, 10)) == first
    assert desk.dump(job_id) == before


def test_an_older_chunk_again_gets_no_tickets(desk):
    job_id = desk.job(sizes=(10,), sealed=False)
    desk.append(job_id, 1, (10,))
    before = desk.dump(job_id)
    answer = desk.append(job_id, 0, (10,))
    assert (answer.full, answer.next_chunk, answer.tickets) == (False, 2, ())
    assert desk.dump(job_id) == before


def test_the_last_chunk_with_other_content_is_a_conflict(desk):
    job_id = desk.job(sizes=(10, 10), sealed=False)
    before = desk.dump(job_id)
    with pytest.raises(SubmissionConflict, match="two producers"):
        desk.append(job_id, 0, (10, 11))
    assert desk.dump(job_id) == before


def test_a_gap_between_chunks_is_refused(desk):
    job_id = desk.job(sizes=(10,), sealed=False)
    before = desk.dump(job_id)
    with pytest.raises(SubmissionConflict, match="expects chunk 1") as caught:
        desk.append(job_id, 2, (10,))
    assert caught.value.facts["next_chunk"] == 1
    assert desk.dump(job_id) == before


def test_sealing_with_another_count_is_refused(desk):
    job_id = desk.job(sizes=(10,), sealed=False)
    with pytest.raises(SubmissionConflict):
        desk.ledger.seal(job_id, 2)
    assert desk.ledger.seal(job_id, 1).state is JobState.SEALED
    assert desk.ledger.seal(job_id, 1).state is JobState.SEALED
    with pytest.raises(SubmissionConflict):
        desk.ledger.seal(job_id, 0)


def test_nothing_can_be_added_to_a_sealed_job(desk):
    job_id = desk.job(sizes=(10,))
    before = desk.dump(job_id)
    with pytest.raises(JobEnded, match="sealed"):
        desk.append(job_id, 1, (10,))
    assert desk.dump(job_id) == before


def test_an_empty_job_is_done_when_it_is_sealed(desk):
    job_id = desk.job(sizes=())
    progress = desk.ledger.progress(job_id)
    assert progress.state is JobState.DONE
    assert progress.ended
    assert progress.finished_ms >= progress.created_ms
    assert desk.ledger.active_jobs() == []


def test_a_job_whose_items_all_ended_before_it_was_sealed_is_done_when_it_is_sealed(desk):
    job_id = desk.job(sizes=(10,), sealed=False)
    desk.finish(desk.claim(job_id))
    assert desk.ledger.progress(job_id).state is JobState.OPEN
    assert desk.ledger.seal(job_id, 1).state is JobState.DONE


@pytest.mark.parametrize(
    ("options", "sizes"),
    [({"max_pending_batches": 3}, (1, 1)), ({"max_pending_bytes": 30}, (1, 1))],
    ids=["batches", "bytes"],
)
def test_at_the_high_water_mark_nothing_is_written_until_workers_catch_up(desk, options, sizes):
    job_id = desk.job(sizes=(1, 1), sealed=False, **options)
    before = desk.dump(job_id)
    full = desk.append(job_id, 1, sizes)
    assert (full.full, full.next_chunk, full.tickets) == (True, 1, ())
    assert desk.dump(job_id) == before
    desk.finish(desk.claim(job_id))
    desk.finish(desk.claim(job_id))
    assert not desk.append(job_id, 1, sizes).full


def test_a_chunk_over_the_marks_is_accepted_when_nothing_is_pending(desk):
    job_id = desk.job(sizes=(), sealed=False, max_pending_bytes=1, max_pending_batches=1)
    assert not desk.append(job_id, 0, (5, 5, 5)).full
    assert desk.append(job_id, 1, (1,)).full


def test_a_batch_without_items_is_refused(desk):
    job_id = desk.job(sizes=(), sealed=False)
    with pytest.raises(ValueError, match="at least one item"):
        desk.ledger.append(job_id, 0, [BatchPayload(0, b"")])


def test_a_job_that_never_was_is_not_found(desk):
    with pytest.raises(JobNotFound):
        desk.ledger.append(new_job_id(), 0, [BatchPayload(1, b"x")])
    with pytest.raises(JobNotFound):
        desk.ledger.seal(new_job_id(), 0)
    with pytest.raises(JobNotFound):
        desk.ledger.progress(new_job_id())
