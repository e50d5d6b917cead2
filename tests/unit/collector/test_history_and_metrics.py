"""History rings, and the families that Prometheus reads."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tidegate.collector.aggregate import Aggregate
from tidegate.collector.history import Ring
from tidegate.collector.jobs import JobsSnapshot, JobsView
from tidegate.collector.metrics import BOUNDS_S, Metrics
from tidegate.collector.view import history, job_row, overview
from tidegate.model.job import Progress
from tidegate.model.outcome import JobState, Outcome
from tidegate.model.stats import coarse_index

T0_MS = 1_700_000_000_000


class Jobs:
    """The two calls that the view makes of a ledger, on jobs at hand."""

    def __init__(self, *jobs: Progress) -> None:
        self._jobs = list(jobs)

    def jobs(self, limit: int = 50) -> list[Progress]:
        return self._jobs[:limit]


def scraped(aggregate: Aggregate, *jobs: Progress) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    view = JobsView(Jobs(*jobs))  # type: ignore[arg-type]
    view.refresh()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics(aggregate, view))
    text = generate_latest(registry).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def job(state: JobState = JobState.SEALED, **fields: Any) -> Progress:
    return Progress(**{"job_id": "j", "task": "t", "queue": "q", "state": state, **fields})


def test_a_ring_keeps_its_newest_steps() -> None:
    ring = Ring(1000, 3)
    for second in range(10):
        bucket = ring.at(second * 1000)
        assert bucket is not None
        bucket.succeeded = second

    assert [bucket.succeeded for _, bucket in ring.points(10_000)] == [7, 8, 9]
    assert ring.at(2_000) is None
    assert len(ring.kept()) == 3


def test_a_ring_shows_empty_steps_as_nothing() -> None:
    ring = Ring(1000, 4)
    for second in (0, 3):
        bucket = ring.at(second * 1000)
        assert bucket is not None
        bucket.succeeded = 1

    assert [(at, bucket.succeeded) for at, bucket in ring.points(4_000)] == [(0, 1), (1000, 0), (2000, 0), (3000, 1)]


def test_a_ring_survives_a_jump_of_years() -> None:
    ring = Ring(1000, 3)
    ring.at(0)
    ring.at(10**15)

    assert len(ring.kept()) == 1


def test_counters_are_in_base_units(make_entry: Any) -> None:
    aggregate = Aggregate()
    aggregate.add([make_entry(1, redis_ns=250_000_000, cpu_ns=10**9, lane={"failed": 2, "retried": 4})], "1-0")

    seen = scraped(aggregate)

    assert seen["tidegate_items_total", (("outcome", "succeeded"), ("task", "t"))] == 10
    assert seen["tidegate_items_total", (("outcome", "failed"), ("task", "t"))] == 2
    assert seen["tidegate_retries_total", (("task", "t"),)] == 4
    assert seen["tidegate_busy_seconds_total", (("task", "t"),)] == pytest.approx(0.05)
    assert seen["tidegate_ledger_seconds_total", ()] == 0.25
    assert seen["tidegate_worker_cpu_seconds_total", ()] == 1.0
    assert seen["tidegate_slot_seconds_total", ()] == 2.0


def test_histograms_are_cumulative_and_complete(make_entry: Any) -> None:
    stats = {f"running:{coarse_index(round(s * 1e9))}": 1 for s in (0.00005, 0.003, 0.07, 4.0, 1000.0)}
    aggregate = Aggregate()
    aggregate.add([make_entry(1, lane={"stats": {**stats, "running_sum_ns": 10**9, "running_count": 5}})], "1-0")

    seen = scraped(aggregate)

    bounds = [*(f"{bound}" for bound in BOUNDS_S), "+Inf"]
    values = [seen["tidegate_run_seconds_bucket", (("le", bound), ("task", "t"))] for bound in bounds]
    assert values == sorted(values)
    assert dict(zip(bounds, values, strict=True)) | {
        "0.0001": 1,
        "0.005": 2,
        "0.1": 3,
        "5.0": 4,
        "300.0": 4,
        "+Inf": 5,
    } == dict(zip(bounds, values, strict=True))
    assert seen["tidegate_run_seconds_count", (("task", "t"),)] == 5
    assert seen["tidegate_run_seconds_sum", (("task", "t"),)] == 1.0


def test_a_dead_worker_has_no_series(make_entry: Any) -> None:
    aggregate = Aggregate()
    aggregate.add([make_entry(1, "dead"), make_entry(30, "live")], "1-0")
    aggregate.expire(T0_MS + 31_000)

    workers = {dict(labels)["worker"] for name, labels in scraped(aggregate) if name == "tidegate_worker_memory_bytes"}

    assert workers == {"live"}


@pytest.mark.parametrize(
    "name", ['a"b', "a\\b", "a\nb", "a}b", 'x"} 1\ntidegate_forged 1', "\x00", "é\u202e", "x" * 5000]
)
def test_hostile_names_stay_one_label(make_entry: Any, name: str) -> None:
    aggregate = Aggregate()
    aggregate.add(
        [make_entry(1, name, host=name, lane={"task": name, "errors": {name: 1}, "limits": {name: 1}})], "1-0"
    )

    seen = scraped(aggregate)

    assert ("tidegate_forged", ()) not in seen
    tasks = {dict(labels)["task"] for metric, labels in seen if metric == "tidegate_items_total"}
    assert tasks == {name[:200]}


def test_jobs_are_counted_by_state_with_their_oldest_batch() -> None:
    waiting = job(ready_batches=4, oldest_ready_ms=2500, pending=40, pending_bytes=100)
    parked = job(JobState.PARKED, ready_batches=1, oldest_ready_ms=90_000, pending=1)
    done = job(JobState.DONE, ready_batches=0)

    seen = scraped(Aggregate(), waiting, parked, done)

    states = {
        state: seen["tidegate_jobs", (("state", state),)] for state in ("sealed", "parked", "done", "open", "paused")
    }
    assert states == {"sealed": 1, "parked": 1, "done": 1, "open": 0, "paused": 0}
    assert seen["tidegate_ready_batch_age_seconds", ()] == 2.5
    assert seen["tidegate_ready_batches", ()] == 5
    assert seen["tidegate_pending_items", ()] == 41


def test_the_overview_looks_at_the_last_minute(make_entry: Any) -> None:
    aggregate = Aggregate()
    entries = [make_entry(second, lane={"failed": 10}) for second in range(1, 101)]
    aggregate.add(entries, entries[-1][0])

    view = overview(aggregate, JobsSnapshot(), T0_MS + 101_000)

    assert view["last_minute"] == {"items_per_s": 20.0, "success_rate": 0.5, "idle_share": 0.5}
    assert view["totals"]["succeeded"] == 1000


def test_nothing_seen_is_shown_as_unknown_and_not_as_zero_per_cent() -> None:
    assert overview(Aggregate(), JobsSnapshot(), T0_MS)["last_minute"]["success_rate"] is None


def test_history_is_in_columns_of_one_length(make_entry: Any) -> None:
    aggregate = Aggregate()
    aggregate.add([make_entry(5)], "1-0")

    columns = history(aggregate.ten_seconds, T0_MS + 20_000)

    step = columns.pop("step_ms")
    assert step == 10_000
    assert {len(column) for column in columns.values()} == {360}
    assert sum(columns["succeeded_per_s"]) == pytest.approx(1.0)


def test_a_jobs_row_is_safe_to_show() -> None:
    row = job_row(job(task="<b>\x1b[1m", reason="a\nb", outcomes={Outcome.SUCCEEDED: 3}))

    assert row["task"] == "<b>\\x1b[1m"
    assert row["reason"] == "a\\nb"
    assert row["done"] == 3
