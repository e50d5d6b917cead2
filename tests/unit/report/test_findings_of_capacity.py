"""Findings about capacity: limits, concurrency, batch size, and what adding workers would do."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.model.job import JobSpec
from tidegate.report.facts import Facts
from tidegate.report.findings import Finding, find
from tidegate.report.findings.bottleneck import Kind, bottleneck

MS = 1_000_000


def found(facts: Facts, code: str) -> Finding | None:
    return next((finding for finding in find(facts) if finding.code == code), None)


@pytest.mark.parametrize(
    ("limited", "appears"),
    [((1000, 100 * MS + 1), True), ((1000, 100 * MS), False), ((0, 0), False)],
)
def test_limit_waits_are_told_when_items_wait_longer_than_they_run(
    make_facts: Any, make_times: Any, limited: tuple[int, int], appears: bool
) -> None:
    facts = make_facts(times=make_times(running=(1000, 100 * MS), limited=limited))

    assert appears == (found(facts, "limit_waits") is not None)


@pytest.mark.parametrize(("runs", "each_ns"), [(19, 1000 * MS), (1000, 900_000)])
def test_few_runs_or_little_waiting_in_all_is_no_evidence_for_a_limit(
    make_facts: Any, make_times: Any, runs: int, each_ns: int
) -> None:
    facts = make_facts(times=make_times(running=(runs, 100_000), limited=(runs, each_ns)))

    assert found(facts, "limit_waits") is None


def test_the_limit_is_named_by_what_items_were_seen_waiting_for(
    make_facts: Any, make_times: Any, make_telemetry: Any
) -> None:
    facts = make_facts(
        times=make_times(running=(1000, 100 * MS), limited=(1000, 300 * MS)),
        sampled=make_telemetry(limits={"host": 90, "api": 10}),
    )

    finding, adding = found(facts, "limit_waits"), found(facts, "adding_workers")

    assert finding is not None
    assert adding is not None
    assert "limit host" in finding.title
    assert "90 %" in finding.evidence
    assert "would add nothing: host" in adding.title


def test_without_telemetry_the_only_limit_of_the_task_is_named(
    make_facts: Any, make_times: Any, make_telemetry: Any
) -> None:
    facts = make_facts(
        times=make_times(running=(1000, 100 * MS), limited=(1000, 300 * MS)), sampled=make_telemetry(seconds=0)
    )

    finding = found(facts, "limit_waits")

    assert finding is not None
    assert "limit api" in finding.title


def test_a_task_with_several_limits_and_no_telemetry_names_them_all(
    make_facts: Any, make_times: Any, make_telemetry: Any
) -> None:
    spec = JobSpec(job_id="x", task="shop.fetch", limits=("api", "host"))
    waits = make_times(running=(1000, 100 * MS), limited=(1000, 300 * MS))

    finding = found(make_facts(times=waits, spec=spec, sampled=make_telemetry(seconds=0)), "limit_waits")

    assert finding is not None
    assert "limit api or host" in finding.title


@pytest.mark.parametrize(
    ("each_ns", "appears"),
    [(59 * MS, True), (60 * MS, False)],  # 1,000 runs in 10 s: 5.9 or 6.0 at once, of 12
)
def test_low_concurrency_is_told_below_half_of_what_is_configured(
    make_facts: Any, make_times: Any, each_ns: int, appears: bool
) -> None:
    facts = make_facts(times=make_times(running=(1000, each_ns)))

    finding = found(facts, "low_concurrency")

    assert appears == (finding is not None)
    assert finding is None or "configured 12 over 2 processes" in finding.evidence


@pytest.mark.parametrize("telemetry", [{"seconds": 4}, {"seconds": 0}, {"lane": {"concurrency": 0}}])
def test_low_concurrency_is_not_told_without_enough_telemetry(
    make_facts: Any, make_times: Any, make_telemetry: Any, telemetry: dict[str, Any]
) -> None:
    facts = make_facts(times=make_times(running=(1000, MS)), sampled=make_telemetry(**telemetry))

    assert found(facts, "low_concurrency") is None


def test_low_concurrency_is_not_told_of_a_task_that_runs_one_at_a_time(
    make_facts: Any, make_times: Any, make_telemetry: Any
) -> None:
    facts = make_facts(
        times=make_times(running=(1000, MS)), sampled=make_telemetry(processes=1, lane={"concurrency": 1, "busy_ns": 0})
    )

    assert found(facts, "low_concurrency") is None


@pytest.mark.parametrize(
    ("waits", "telemetry", "part"),
    [
        ({"limited": (1000, 50 * MS)}, {}, "wait for a limit"),
        ({"backoff": (1000, 50 * MS)}, {}, "wait for retries"),
        ({"settling": (1000, 50 * MS)}, {}, "to be committed"),
        ({}, {"idle": 0.9}, "short of batches"),
        ({}, {"idle": 0.1}, "enough items to fill its concurrency"),
    ],
)
def test_the_remedy_for_low_concurrency_follows_from_what_items_wait_for(
    make_facts: Any, make_times: Any, make_telemetry: Any, waits: Any, telemetry: Any, part: str
) -> None:
    facts = make_facts(times=make_times(running=(1000, 20 * MS), **waits), sampled=make_telemetry(**telemetry))

    finding = found(facts, "low_concurrency")

    assert finding is not None
    assert part in finding.remedy


BUSY_NS = 900 * MS * 4  # of one process in a second: four slots, idle a tenth


@pytest.mark.parametrize(
    ("redis_ns", "work_ns", "seconds", "appears"),
    [
        (round(0.3 * BUSY_NS) + 1, MS, 10, True),
        (round(0.3 * BUSY_NS), MS, 10, False),
        (BUSY_NS, 2 * MS, 10, False),  # fifty items of 2 ms: a batch is 100 ms of work
        (BUSY_NS, MS, 2, False),
    ],
)
def test_small_batches_are_told_when_the_ledger_takes_the_time_of_short_ones(
    make_facts: Any, make_times: Any, make_telemetry: Any, redis_ns: int, work_ns: int, seconds: int, appears: bool
) -> None:
    facts = make_facts(
        times=make_times(running=(1000, work_ns)), sampled=make_telemetry(redis_ns=redis_ns, seconds=seconds)
    )

    assert appears == (found(facts, "small_batches") is not None)


def test_few_commits_say_nothing_about_batch_size(make_facts: Any, make_times: Any, make_telemetry: Any) -> None:
    facts = make_facts(times=make_times(running=(1000, MS)), sampled=make_telemetry(redis_ns=BUSY_NS, commits=2))

    assert found(facts, "small_batches") is None


# -- what adding workers would do: six injected bottlenecks, each must be named --------------------------------------

LONG_WAIT = {"ready": (1000, 500 * MS)}  # 1,000 items wait 500 ms in 10 s: 50 items, that is one batch, at a time
CASES: dict[Kind, tuple[dict[str, Any], dict[str, Any]]] = {
    Kind.LIMIT: ({"limited": (1000, 200 * MS)}, {}),
    Kind.RETRIES: ({"backoff": (1000, 200 * MS)}, {}),
    Kind.INPUT: ({}, {"idle": 0.5}),
    Kind.CPU: (LONG_WAIT, {"cpu": 0.8}),
    Kind.CONCURRENCY: ({"queued": (1000, 101 * MS)}, {}),
    Kind.SLOTS: (LONG_WAIT, {}),
}


@pytest.mark.parametrize("kind", CASES)
def test_each_injected_bottleneck_is_named(make_facts: Any, make_times: Any, make_telemetry: Any, kind: Kind) -> None:
    waits, telemetry = CASES[kind]
    facts = make_facts(times=make_times(running=(1000, 100 * MS), **waits), sampled=make_telemetry(**telemetry))

    named = bottleneck(facts)

    assert named is not None
    assert named.kind is kind
    finding = found(facts, "adding_workers")
    assert finding is not None
    assert ("nothing" in finding.title or "little" in finding.title) == (kind in (Kind.LIMIT, Kind.RETRIES, Kind.INPUT))


@pytest.mark.parametrize(("name", "kind"), [("limited", Kind.LIMIT), ("backoff", Kind.RETRIES)])
@pytest.mark.parametrize(("each_ns", "most"), [(100 * MS, True), (100 * MS - 1, False)])
def test_waiting_decides_the_speed_from_half_of_all_item_time(
    make_facts: Any, make_times: Any, name: str, kind: Kind, each_ns: int, most: bool
) -> None:
    named = bottleneck(make_facts(times=make_times(running=(1000, 100 * MS), **{name: (1000, each_ns)})))

    assert (named is not None and named.kind is kind) == most


@pytest.mark.parametrize("kind", [Kind.INPUT, Kind.CPU, Kind.CONCURRENCY, Kind.SLOTS])
def test_what_needs_telemetry_is_not_said_without_five_seconds_of_it(
    make_facts: Any, make_times: Any, make_telemetry: Any, kind: Kind
) -> None:
    waits, telemetry = CASES[kind]
    for seconds in (0, 4):
        sampled = make_telemetry(seconds=seconds, **telemetry)
        assert bottleneck(make_facts(times=make_times(running=(1000, 100 * MS), **waits), sampled=sampled)) is None


@pytest.mark.parametrize("kind", CASES)
def test_nothing_is_said_about_adding_workers_from_nineteen_runs(
    make_facts: Any, make_times: Any, make_telemetry: Any, kind: Kind
) -> None:
    waits, telemetry = CASES[kind]
    facts = make_facts(times=make_times(running=(19, 100 * MS), **waits), sampled=make_telemetry(**telemetry))

    assert found(facts, "adding_workers") is None


@pytest.mark.parametrize(("concurrency", "kind"), [(10, Kind.CONCURRENCY), (11, None)])
def test_items_that_queue_in_workers_that_use_half_of_their_concurrency_do_not_wait_for_slots(
    make_facts: Any, make_times: Any, make_telemetry: Any, concurrency: int, kind: Kind | None
) -> None:
    facts = make_facts(
        times=make_times(running=(1000, 100 * MS), queued=(1000, 900 * MS), **LONG_WAIT),
        sampled=make_telemetry(lane={"concurrency": concurrency}),
    )

    named = bottleneck(facts)

    assert (named.kind if named else None) is kind


def test_half_idle_workers_with_batches_waiting_are_not_called_short_of_input(
    make_facts: Any, make_times: Any, make_telemetry: Any
) -> None:
    facts = make_facts(times=make_times(running=(1000, 100 * MS), **LONG_WAIT), sampled=make_telemetry(idle=0.6))

    assert bottleneck(facts) is None
