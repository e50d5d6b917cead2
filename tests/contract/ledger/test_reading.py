"""Reading while the job runs: results, dead letters, events, the list of jobs."""

from __future__ import annotations

import threading

import pytest

from tidegate.errors import JobNotFound
from tidegate.ledger.port import Cursor, Settlement
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import new_job_id
from tidegate.model.outcome import FailureRecord, Outcome
from tidegate.model.wire import encode_failures


def test_results_are_read_in_pages_from_where_one_stopped(desk):
    job_id = desk.job(sizes=(1,) * 5)
    for _ in range(5):
        desk.finish(desk.claim(job_id))
    blocks, cursor = desk.ledger.read_results(job_id, Cursor(), count=3)
    assert blocks == [b"results of 0", b"results of 1", b"results of 2"]
    blocks, cursor = desk.ledger.read_results(job_id, cursor, count=3)
    assert blocks == [b"results of 3", b"results of 4"]
    assert desk.ledger.read_results(job_id, cursor) == ([], cursor)


def test_a_reader_that_waits_gets_the_next_block_when_it_is_there(desk):
    job_id = desk.job(sizes=(1,))
    got = []
    reader = threading.Thread(target=lambda: got.append(desk.ledger.read_results(job_id, Cursor(), block_ms=30_000)))
    reader.start()
    desk.finish(desk.claim(job_id))
    reader.join(30)
    assert got[0][0] == [b"results of 0"]


def test_a_reader_does_not_wait_longer_than_it_said(desk):
    assert desk.ledger.read_results(desk.job(), Cursor(), block_ms=20) == ([], Cursor())


def test_dead_letters_are_read_whole_however_many_blocks_there_are(desk):
    job_id = desk.job(sizes=(2,) * 40)
    for number in range(40):
        records = [
            FailureRecord(number * 2 + i, Outcome.FAILED, "ValueError", "no", "fp", 3, b"\xc0") for i in range(2)
        ]
        block = Settlement(settled=2, outcomes={Outcome.FAILED: 2}, executions=6, failures=encode_failures(records))
        desk.commit(desk.claim(job_id), block)
    found = list(desk.ledger.read_failures(job_id))
    assert [record.index for record in found] == list(range(80))
    assert found[0].attempts == 3
    assert list(desk.ledger.read_failures(new_job_id())) == []


def test_results_and_dead_letters_are_read_in_one_request_each_from_its_own_place(desk):
    job_id = desk.job(sizes=(1,) * 4)
    one = encode_failures([FailureRecord(1, Outcome.FAILED, "ValueError", "no", "fp", 1, b"\xc0")])
    start = Cursor()
    assert desk.ledger.read_outcomes(job_id, start, start, block_ms=0) == ([], start, [], start)
    for number in range(4):
        lease = desk.claim(job_id)
        kind = {"failures": one} if number % 2 else {"results": b"r%d" % number}
        outcome = Outcome.FAILED if number % 2 else Outcome.SUCCEEDED
        desk.commit(lease, Settlement(settled=1, outcomes={outcome: 1}, executions=1, **kind))
    blocks, good, records, bad = desk.ledger.read_outcomes(job_id, start, start, count=1)
    assert (blocks, len(records)) == ([b"r0"], 1)
    blocks, good, records, bad = desk.ledger.read_outcomes(job_id, good, bad, block_ms=1)
    assert (blocks, len(records)) == ([b"r2"], 1)
    assert desk.ledger.read_outcomes(job_id, good, bad, block_ms=1) == ([], good, [], bad)


@pytest.mark.parametrize("change", ["pause", "cancel", "seal"])
def test_who_waits_for_an_event_is_woken_by_it(desk, change):
    job_id = desk.job(sealed=False)
    desk.ledger.progress(job_id)
    waiter = threading.Thread(target=lambda: desk.ledger.wait_event(job_id, block_ms=60_000))
    waiter.start()
    with RedisLedger.from_url(desk.url) as other:
        getattr(other, change)(*((job_id, 1) if change == "seal" else (job_id,)))
    waiter.join(30)
    assert not waiter.is_alive()


def test_an_event_between_looking_and_waiting_is_not_missed(desk):
    job_id = desk.job(sizes=(1,))
    desk.ledger.progress(job_id)
    with RedisLedger.from_url(desk.url) as other:
        other.pause(job_id)
    waiter = threading.Thread(target=lambda: desk.ledger.wait_event(job_id, block_ms=60_000), daemon=True)
    waiter.start()
    waiter.join(30)
    assert not waiter.is_alive()


def test_each_event_wakes_once(desk):
    job_id = desk.job()
    desk.ledger.pause(job_id)
    desk.ledger.progress(job_id)
    woken = threading.Event()
    waiter = threading.Thread(target=lambda: (desk.ledger.wait_event(job_id, block_ms=20), woken.set()))
    waiter.start()
    waiter.join(30)
    assert woken.is_set()


def test_the_newest_jobs_come_first_and_jobs_that_are_gone_are_left_out(desk):
    jobs = []
    for _ in range(6):
        jobs.append(desk.job())
        desk.skew(10)
    desk.client.unlink(*desk.client.keys(f"tg:{{{jobs[4]}}}:*"))
    assert [progress.job_id for progress in desk.ledger.jobs(limit=3)] == [jobs[5], jobs[3], jobs[2]]
    assert len(desk.ledger.jobs()) == 5


def test_progress_never_shows_a_moment_that_does_not_add_up(desk, settle):
    job_id = desk.job(sizes=(10,) * 20)
    stop = threading.Event()
    seen = []

    def look() -> None:
        with RedisLedger.from_url(desk.url) as other:
            while not stop.is_set():
                seen.append(other.progress(job_id))

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(20):
        lease = desk.claim(job_id, f"w{number % 3}")
        desk.commit(lease, settle.part(lease, range(4)))
        desk.commit(lease, settle.part(lease, range(4, 10)))
    stop.set()
    watcher.join()
    assert all(progress.total == progress.done + progress.pending == 200 for progress in seen)
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)


def test_the_oldest_ready_batch_says_how_long_it_has_waited(desk):
    job_id = desk.job()
    desk.skew(5_000)
    assert 5_000 <= desk.ledger.progress(job_id).oldest_ready_ms < 60_000


def test_histograms_and_errors_of_an_unknown_job_are_empty(desk):
    job_id = new_job_id()
    assert (desk.ledger.stats(job_id), desk.ledger.errors(job_id), desk.ledger.traces(job_id)) == ({}, {}, {})
    with pytest.raises(JobNotFound):
        desk.ledger.wait_event(job_id, block_ms=1)
