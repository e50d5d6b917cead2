"""The sampler: weights, peaks and gaps of worker processes over a job's time, from the telemetry stream."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.report.sampled import MAX_POINTS, MAX_PROCESSES, records_of, sample
from tidegate.telemetry.record import LaneDelta, TelemetryRecord

T0 = 1_700_000_000_000
S = 10**9


def record(second: int, worker: str = "w", task: str = "t", **fields: Any) -> tuple[int, TelemetryRecord]:
    lane = LaneDelta(task=task, concurrency=4, running=2, peak_running=3, busy_ns=2 * S, succeeded=10)
    fields = {"interval_ns": S, "slots": 2, "lanes": (lane,), "queues": ("q",), **fields}
    return T0 + 1000 * second, TelemetryRecord(worker=worker, sequence=fields.pop("sequence", second), **fields)


def test_averages_are_over_the_time_that_records_cover() -> None:
    facts = sample(records_of([record(s, w) for s in (1, 2, 3, 4) for w in ("a", "b")]), "t", "q", T0, T0 + 4000)

    assert facts.covered_s == 4.0
    assert facts.average_running == pytest.approx(4.0)
    assert facts.concurrency_configured == pytest.approx(8.0)
    assert facts.concurrency_peak == 6


def test_a_process_replaced_half_way_is_not_two_processes_worth_of_concurrency() -> None:
    records = [record(1, "old"), record(2, "old"), record(3, "new", sequence=1), record(4, "new", sequence=2)]

    facts = sample(records_of(records), "t", "q", T0, T0 + 4000)

    assert len(facts.processes) == 2
    assert facts.concurrency_configured == pytest.approx(4.0)


def test_a_record_that_comes_twice_is_added_once_and_a_gap_is_counted() -> None:
    facts = sample(records_of([record(1), record(1), record(4)]), "t", "q", T0, T0 + 4000)

    assert facts.records == 2
    assert facts.missing == 2
    assert sum(point.succeeded for point in facts.timeline) == 20


def test_processes_of_other_tasks_count_as_idle_only_when_they_serve_the_queue() -> None:
    records = [record(1, "here", task="other", idle_ns=2 * S), record(1, "elsewhere", task="other", queues=("x",))]

    facts = sample(records_of(records), "t", "q", T0, T0 + 1000)

    assert [process.worker for process in facts.processes] == ["here"]
    assert facts.idle_share == 1.0
    assert facts.average_running == 0


def test_records_outside_of_the_jobs_time_are_left_out() -> None:
    facts = sample(records_of([record(s) for s in range(60)]), "t", "q", T0 + 10_000, T0 + 12_000)

    assert facts.records == 5  # from the start to two seconds after the end, when last records arrive


@pytest.mark.parametrize("end_ms", [T0, T0 - 1])
def test_no_time_or_no_telemetry_gives_no_facts(end_ms: int) -> None:
    assert sample(records_of([record(1)]), "t", "q", T0, end_ms).records == 0
    assert sample(None, "t", "q", T0, T0 + 1000).records == 0


def test_memory_is_bounded_for_a_day_and_a_thousand_processes() -> None:
    day = 86_400_000
    entries = [
        (
            T0 + minute * 60_000,
            TelemetryRecord(worker=f"w{minute % 1000}", sequence=1 + minute, queues=("q",), interval_ns=S),
        )
        for minute in range(1440)
    ]

    facts = sample(records_of(entries), "t", "q", T0, T0 + day)

    assert len(facts.processes) == MAX_PROCESSES
    assert all(len(process.memory_points) <= MAX_POINTS for process in facts.processes)


def test_the_peak_of_memory_survives_a_fall() -> None:
    records = [record(1, memory_bytes=5, memory_peak_bytes=9), record(2, memory_bytes=3, memory_peak_bytes=0)]

    process = sample(records_of(records), "t", "q", T0, T0 + 2000).processes[0]

    assert (process.memory_bytes, process.memory_peak_bytes) == (3, 9)
