"""Real worker processes run jobs: results, failures, retries, and what cannot be run."""

from __future__ import annotations

from typing import Any

import msgspec
from worker_site import Site, wait_until

from tidegate.ledger.port import Cursor
from tidegate.model.job import BatchPayload, JobSpec, new_job_id
from tidegate.model.outcome import JobState
from tidegate.telemetry.record import TelemetryRecord
from tidegate.telemetry.stream import TelemetryReader


def test_every_item_of_a_job_runs_once_and_its_result_is_stored_under_its_index(site: Site) -> None:
    site.start(processes=2).ready()
    job = site.task("double").map(range(3000), batch_size=100)
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 3000}
    assert dict(job.results()) == {index: 2 * index for index in range(3000)}
    seen = site.testimony(job)
    assert (seen.executed, seen.executed_again) == (3000, 0)


def test_coroutines_run_concurrently_and_a_limit_of_the_cluster_holds_them_back(site: Site) -> None:
    site.start().ready()
    path = site.folder / "go on"
    job = site.task("await_file").map([str(path)] * 40, batch_size=20)
    limited = site.task("limited").map([0.01] * 20, batch_size=5)
    wait_until(
        lambda: site.testimony(job).executions == 20, "as many as the task allows run at once, none of them has ended"
    )
    path.touch()
    job.wait(timeout=60)
    limited.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 40}
    assert site.outcomes(limited) == {"succeeded": 20}


def test_failures_are_kept_with_arguments_trace_and_the_line_that_enqueued_them(site: Site) -> None:
    site.start().ready()
    job = site.task("every_third_fails").map(range(10), batch_size=4)
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 6, "failed": 4}
    assert job.errors() == {"ValueError": 4}
    failures = sorted(job.failures(), key=lambda failure: failure.index)
    assert [(failure.index, failure.arguments) for failure in failures] == [(0, 0), (3, 3), (6, 6), (9, 9)]
    assert all("every_third_fails" in failure.traceback for failure in failures)
    assert all("enqueued at" in failure.traceback and __file__ in failure.traceback for failure in failures)
    assert dict(job.results()) == {index: index for index in range(10) if index % 3}


def test_a_result_that_cannot_be_stored_fails_its_item_alone(site: Site) -> None:
    site.start(max_item_bytes=200_000).ready()
    kinds = ["a", "object", "b", "large", "c", "spiteful", "d"]
    job = site.task("odd_results").map(kinds, batch_size=len(kinds))
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 4, "failed": 3}
    assert job.errors() == {"PayloadError": 3}
    assert sorted(failure.arguments for failure in job.failures()) == ["large", "object", "spiteful"]
    assert dict(job.results()) == {0: "a", 2: "b", 4: "c", 6: "d"}


def test_results_too_many_for_one_commit_are_committed_in_parts(site: Site) -> None:
    site.start(max_batch_bytes=700_000, max_item_bytes=400_000).ready()
    job = site.task("odd_results").map(["large", "a"] * 6, batch_size=12)
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 12}
    blocks, _ = site.gate.ledger().read_results(job.id, Cursor(), count=100)
    assert len(blocks) > 2
    assert max(map(len, blocks)) < 800_000
    assert {index: len(value) for index, value in job.results()} == {i: 1 if i % 2 else 300_000 for i in range(12)}


def test_a_job_that_keeps_no_results_does_not_fail_for_results_that_cannot_be_stored(site: Site) -> None:
    site.start().ready()
    job = site.task("odd_results").map(["object", "a"], keep_results=False)
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 2}
    assert site.gate.ledger().read_results(job.id, Cursor())[0] == []


def test_a_long_wait_for_the_next_attempt_is_spent_in_the_ledger(site: Site) -> None:
    tree = site.start().ready()
    job = site.task("fails_until").starmap([("x", 1), ("x", 3), ("x", 2)], batch_size=3)
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 3}
    assert dict(job.results()) == {0: 1, 1: 3, 2: 2}
    seen = site.testimony(job)
    assert [seen.by_index[index] for index in range(3)] == [1, 3, 2], "attempts already made count"
    assert job.progress().attempts == 6
    assert tree.stop() == 0
    # Between its attempts the batch was with nobody: who watches the job may miss that, the worker's own account does not.
    assert sum(record.claims for record in _records(site)) == 3


def test_a_job_whose_task_the_worker_does_not_know_is_parked_with_the_reason(site: Site) -> None:
    (site.folder / "other_app.py").write_text(
        "from tidegate import Tidegate\ngate = Tidegate()\n@gate.task(name='other')\ndef other(x): return x\n"
    )
    other = site.start(app="other_app:gate").ready()
    job = site.task("double").map(range(20), batch_size=5)
    wait_until(lambda: job.progress().state is JobState.PARKED, "the job is parked")
    progress = job.progress()
    assert "'double' is not registered" in progress.reason
    assert "other" in progress.reason
    wait_until(lambda: job.progress().running_batches == 0, "the batches were handed back")
    assert other.stop() == 0
    site.start().ready()
    job.resume()
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 20}
    assert site.testimony(job).executed_again == 0


def _records(site: Site) -> list[TelemetryRecord]:
    """All that workers have told; the last of it when they stop."""
    return [record for _, record in TelemetryReader(site.gate.ledger().client).read(count=10_000)[0]]  # type: ignore[attr-defined]


def _raw_job(site: Site, payload: bytes, items: int) -> str:
    ledger = site.gate.ledger()
    job_id = new_job_id()
    ledger.open(JobSpec(job_id=job_id, task="double"))
    tickets = ledger.append(job_id, 0, [BatchPayload(items, payload)]).tickets
    ledger.seal(job_id, 1)
    site.gate.send_tickets("tidegate", job_id, tickets)
    return job_id


def test_a_batch_of_a_newer_wire_version_parks_the_job_and_nothing_is_lost(site: Site) -> None:
    site.start().ready()
    job_id = _raw_job(site, msgspec.msgpack.encode([99, 0, [1, 2]]), 2)
    job = site.gate.job(job_id)
    wait_until(lambda: job.progress().state is JobState.PARKED, "the job is parked")
    assert "version 99" in job.progress().reason
    assert job.progress().pending == 2


def test_a_payload_that_is_no_batch_fails_its_items_with_the_reason(site: Site) -> None:
    tree = site.start().ready()
    bad: list[tuple[bytes, int]] = [(b"\xc1 not msgpack", 3), (msgspec.msgpack.encode([1, 0, [1]]), 2)]
    for payload, items in bad:
        job = site.gate.job(_raw_job(site, payload, items))
        job.wait(timeout=60)
        assert site.outcomes(job) == {"failed": items}
        assert job.errors() == {"PayloadError": items}
    assert tree.log.count(" ready worker=") == 1, "no process was replaced"


def test_telemetry_adds_up_to_what_the_ledger_knows(site: Site) -> None:
    tree = site.start(processes=2, telemetry_s=0.2).ready()
    job = site.task("every_third_fails").map(range(900), batch_size=50)
    job.wait(timeout=60)
    assert tree.stop() == 0
    records = _records(site)
    lanes = [lane for record in records for lane in record.lanes]
    assert sum(lane.succeeded for lane in lanes) == 600
    assert sum(lane.failed for lane in lanes) == 300
    errors: dict[str, int] = {}
    for lane in lanes:
        for name, count in lane.errors.items():
            errors[name] = errors.get(name, 0) + count
    assert errors == {"ValueError": 300}
    assert sum(record.claims for record in records) == 18
    by_worker: dict[str, list[Any]] = {}
    for record in records:
        by_worker.setdefault(record.worker, []).append(record)
    assert len(by_worker) == 2
    for one in by_worker.values():
        assert [record.sequence for record in one] == list(range(1, len(one) + 1))
        assert [record.stopping for record in one] == [False] * (len(one) - 1) + [True]
        assert all(0 <= record.idle_ns <= record.interval_ns * record.slots for record in one)
        assert one[-1].memory_bytes > 1 << 20
