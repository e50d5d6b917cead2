"""Facts for rules to judge: a healthy job, and the knobs that make it ill. Made with the real sampler from real records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tidegate.model.job import JobSpec, Origin, Progress
from tidegate.model.outcome import JobState, Outcome
from tidegate.model.stats import Distribution, coarse_index
from tidegate.report.facts import Facts
from tidegate.report.sampled import SampledFacts, records_of, sample
from tidegate.telemetry.record import LaneDelta, TelemetryRecord

T0_MS = 1_700_000_000_000
SECOND_NS = 1_000_000_000
MS = 1_000_000


def times(**classes: tuple[int, float]) -> dict[str, Distribution]:
    """``running=(100, 5e6)``: a hundred measurements of 5 ms."""
    return {name: spread((count, each_ns)) for name, (count, each_ns) in classes.items()}


def spread(*groups: tuple[int, float]) -> Distribution:
    """One distribution of several groups of equal measurements."""
    buckets: dict[int, int] = {}
    for count, each_ns in groups:
        buckets[coarse_index(round(each_ns))] = buckets.get(coarse_index(round(each_ns)), 0) + count
    values = [round(each_ns) for count, each_ns in groups if count]
    return Distribution(
        count=sum(count for count, _ in groups),
        sum_ns=sum(count * round(each_ns) for count, each_ns in groups),
        min_ns=min(values, default=0),
        max_ns=max(values, default=0),
        buckets=buckets,
    )


def telemetry(
    *,
    seconds: int = 10,
    processes: int = 2,
    skip: tuple[int, ...] = (),
    limits: dict[str, int] | None = None,
    **fields: Any,
) -> SampledFacts:
    """What the sampler makes of ``processes`` that report every second; ``idle`` and ``cpu`` are shares."""
    lane = {"concurrency": 6, "running": 5, "peak_running": 6, "busy_ns": 5 * SECOND_NS, **fields.pop("lane", {})}
    idle, cpu = fields.pop("idle", 0.1), fields.pop("cpu", 0.3)
    record = {
        "slots": 4,
        "idle_ns": round(4 * idle * SECOND_NS),
        "cpu_ns": round(cpu * SECOND_NS),
        "memory_bytes": 100 << 20,
        "memory_peak_bytes": 120 << 20,
        "memory_limit_bytes": 1 << 30,
        "commits": 10,
        "claims": 10,
        "redis_ns": 10 * MS,
        **fields,
    }
    entries = [
        (
            T0_MS + 1000 * second,
            TelemetryRecord(
                worker=f"w{process}",
                sequence=second,
                host="box",
                pid=100 + process,
                queues=("tidegate",),
                interval_ns=SECOND_NS,
                lanes=(LaneDelta(task="shop.fetch", limits=limits or {}, **lane),),
                **record,
            ),
        )
        for second in range(1, seconds + 1)
        if second not in skip
        for process in range(processes)
    ]
    return sample(records_of(entries), "shop.fetch", "tidegate", T0_MS, T0_MS + 1000 * seconds)


def healthy(**changes: Any) -> Facts:
    """A job of 1,000 items that ended after 10 s with nothing to say about it. Changes are fields of Facts or Progress."""
    progress = Progress(
        job_id="01hjob",
        task="shop.fetch",
        queue="tidegate",
        state=JobState.DONE,
        total=1000,
        outcomes={Outcome.SUCCEEDED: 1000},
        attempts=1000,
        batches=20,
        batches_done=20,
        created_ms=T0_MS,
        started_ms=T0_MS,
        finished_ms=T0_MS + 10_000,
        now_ms=T0_MS + 60_000,
        spec=JobSpec(
            job_id="01hjob",
            task="shop.fetch",
            concurrency=6,
            attempts=3,
            timeout_s=2.0,
            limits=("api",),
            origin=Origin("/app/shop/views.py", 88, "import_all", ""),
        ),
    )
    known = {name: changes.pop(name) for name in list(changes) if name in Progress.__dataclass_fields__}
    facts = Facts(
        progress=replace(progress, **known),
        taken_wall_ms=T0_MS + 60_000,
        times=times(
            running=(1000, 100 * MS), queued=(1000, MS), limited=(1000, MS), settling=(1000, MS), ready=(1000, MS)
        ),
        live_workers=2,
        sampled=telemetry(),
    )
    return replace(facts, **changes)


@pytest.fixture
def make_facts() -> Callable[..., Facts]:
    return healthy


@pytest.fixture
def make_times() -> Callable[..., dict[str, Distribution]]:
    return times


@pytest.fixture
def make_spread() -> Callable[..., Distribution]:
    return spread


@pytest.fixture
def make_telemetry() -> Callable[..., SampledFacts]:
    return telemetry
