"""Findings about a job's state and its workers: held, unserved, losing leases, short of memory, idle, contradicting."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.model.outcome import JobState, Outcome
from tidegate.report.facts import Facts
from tidegate.report.findings import Finding, Severity, find

MS = 1_000_000
RUNNING = {"state": JobState.SEALED, "finished_ms": 0, "pending": 500, "outcomes": {Outcome.SUCCEEDED: 500}}


def found(facts: Facts, code: str) -> Finding | None:
    return next((finding for finding in find(facts) if finding.code == code), None)


def test_a_parked_job_is_critical_and_tells_its_reason_without_control_characters(make_facts: Any) -> None:
    finding = found(make_facts(state=JobState.PARKED, reason="no task \x1b[31mshop.x", finished_ms=0), "parked")

    assert finding is not None
    assert finding.severity is Severity.CRITICAL
    assert finding.evidence == r"no task \x1b[31mshop.x"


def test_a_job_that_is_not_parked_is_not_called_so(make_facts: Any) -> None:
    assert found(make_facts(**RUNNING, reason="old"), "parked") is None


@pytest.mark.parametrize(
    ("state", "appears"), [(JobState.SEALED, True), (JobState.DONE, False), (JobState.PARKED, False)]
)
def test_a_paused_job_with_work_left_is_told(make_facts: Any, state: JobState, appears: bool) -> None:
    facts = make_facts(**{**RUNNING, "state": state}, paused=True)

    assert appears == (found(facts, "paused") is not None)


UNSERVED = {**RUNNING, "ready_batches": 10, "live_workers": 0}


def test_a_job_that_waits_with_no_live_worker_is_critical(make_facts: Any) -> None:
    finding = found(make_facts(**UNSERVED, live_elsewhere=3), "no_worker")

    assert finding is not None
    assert finding.severity is Severity.CRITICAL
    assert "10 batches are ready" in finding.evidence
    assert "3 live worker processes serve other queues" in finding.evidence


@pytest.mark.parametrize(
    "change",
    [
        {"live_workers": 1},
        {"running_batches": 1},  # somebody holds a batch: he is alive or will be found out
        {"ready_batches": 0},
        {"paused": True},
        {"state": JobState.PARKED},
        {"state": JobState.DONE},
        {"now_ms": 1_700_000_004_999},  # submitted 5 s ago, less a millisecond
    ],
)
def test_a_job_that_is_served_held_ended_or_new_is_not_called_unserved(make_facts: Any, change: dict[str, Any]) -> None:
    assert found(make_facts(**{**UNSERVED, **change}), "no_worker") is None


def test_five_seconds_without_a_worker_are_enough(make_facts: Any) -> None:
    assert found(make_facts(**{**UNSERVED, "now_ms": 1_700_000_005_000}), "no_worker") is not None


@pytest.mark.parametrize(("lost", "stale", "appears"), [(1, 0, True), (0, 1, True), (0, 0, False)])
def test_lost_leases_and_refused_commits_are_told(make_facts: Any, lost: int, stale: int, appears: bool) -> None:
    facts = make_facts(lost_leases=lost, stale_refused=stale)

    assert appears == (found(facts, "lost_leases") is not None)


def test_late_commits_alone_are_not_called_lost_batches(make_facts: Any) -> None:
    finding = found(make_facts(stale_refused=1), "lost_leases")

    assert finding is not None
    assert finding.title == "1 commit came too late and changed nothing"


GIB = 1 << 30


@pytest.mark.parametrize(
    ("fields", "appears"),
    [
        ({"memory_peak_bytes": round(0.73 * GIB)}, True),
        ({"memory_peak_bytes": round(0.71 * GIB)}, False),  # nine tenths of a mark at 0.8 are 0.72
        ({"memory_bytes": round(0.73 * GIB), "memory_peak_bytes": 0}, True),
        ({"memory_peak_bytes": 0, "pressure_soft": 1}, True),
        ({"memory_peak_bytes": GIB, "memory_limit_bytes": 0}, False),
    ],
)
def test_memory_is_told_from_nine_tenths_of_its_mark(
    make_facts: Any, make_telemetry: Any, fields: dict[str, int], appears: bool
) -> None:
    facts = make_facts(sampled=make_telemetry(**fields))

    assert appears == (found(facts, "memory_near_mark") is not None)


def test_crossing_the_hard_mark_is_critical(make_facts: Any, make_telemetry: Any) -> None:
    finding = found(make_facts(sampled=make_telemetry(pressure_hard=1)), "memory_near_mark")

    assert finding is not None
    assert finding.severity is Severity.CRITICAL


WAITING = {"ready": (1000, 4000 * MS), "running": (1000, 20 * MS)}  # eight batches of fifty at a time, for eight slots


@pytest.mark.parametrize(
    ("idle", "ready_each_ns", "seconds", "appears"),
    [
        (0.5, 4000 * MS, 10, True),
        (0.49, 4000 * MS, 10, False),
        (0.5, 3900 * MS, 10, False),
        (0.5, 4000 * MS, 4, False),
    ],
)
def test_idle_workers_are_told_while_as_many_batches_wait_as_there_are_slots(
    make_facts: Any, make_times: Any, make_telemetry: Any, idle: float, ready_each_ns: int, seconds: int, appears: bool
) -> None:
    facts = make_facts(
        times=make_times(ready=(1000, ready_each_ns), running=(1000, 20 * MS)),
        sampled=make_telemetry(idle=idle, seconds=seconds),
    )

    assert appears == (found(facts, "idle_while_waiting") is not None)


def test_batches_ready_now_count_for_a_running_job_and_not_for_a_held_one(make_facts: Any, make_telemetry: Any) -> None:
    idle = make_telemetry(idle=0.9)

    running = make_facts(**RUNNING, ready_batches=8, sampled=idle)
    paused = make_facts(**RUNNING, ready_batches=8, paused=True, sampled=idle)

    assert found(running, "idle_while_waiting") is not None
    assert found(paused, "idle_while_waiting") is None


@pytest.mark.parametrize(
    ("busy_s", "appears", "part"),
    [
        (5, False, ""),  # two processes, five items each: 10 at once, as in the ledger
        (9.9, False, ""),
        (10.5, True, "Another job of the same task"),
        (2.4, True, "a lower bound"),
    ],
)
def test_ledger_and_telemetry_must_agree_by_littles_law(
    make_facts: Any, make_telemetry: Any, busy_s: float, appears: bool, part: str
) -> None:
    facts = make_facts(sampled=make_telemetry(lane={"busy_ns": round(busy_s * 1e9)}))

    finding = found(facts, "measures_disagree")

    assert appears == (finding is not None)
    assert finding is None or part in finding.remedy


def test_a_short_or_unfinished_sample_is_not_cross_checked(make_facts: Any, make_telemetry: Any) -> None:
    busy = {"busy_ns": 50 * 10**9}

    short = make_facts(sampled=make_telemetry(seconds=9, lane=busy))
    unfinished = make_facts(**{**RUNNING, "now_ms": 1_700_000_010_000}, sampled=make_telemetry(lane=busy))

    assert found(short, "measures_disagree") is None
    assert found(unfinished, "measures_disagree") is None


@pytest.mark.parametrize(("skip", "appears"), [((), False), ((5,), True)])
def test_missing_telemetry_is_told(make_facts: Any, make_telemetry: Any, skip: tuple[int, ...], appears: bool) -> None:
    facts = make_facts(sampled=make_telemetry(skip=skip))

    assert appears == (found(facts, "telemetry_missing") is not None)


def test_a_trickle_of_missing_records_is_not_worth_a_word(make_facts: Any, make_telemetry: Any) -> None:
    assert found(make_facts(sampled=make_telemetry(seconds=200, skip=(100,))), "telemetry_missing") is None


def test_findings_come_most_severe_first(make_facts: Any) -> None:
    facts = make_facts(state=JobState.PARKED, finished_ms=0, lost_leases=1, outcomes={Outcome.FAILED: 1000})

    ranks = [finding.severity.rank for finding in find(facts)]

    assert ranks == sorted(ranks)
    assert len(ranks) >= 3
