"""Whole schedules against a simple model: what each item does is scripted, and a dozen lines of Python say how it must end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.executor.current import current_item
from tidegate.executor.host import Host, Settled
from tidegate.model.outcome import Outcome
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry

PATIENCE_S = 60.0

#: What one attempt does: succeed, fail in a way that is retried, fail in a way that is not, or suspend first and then those.
STEPS = ("ok", "retry", "final", "ok-later", "retry-later", "final-later")


@dataclass(frozen=True)
class Scripted:
    """One item: what its attempts do (the last step repeats), and what was before this run."""

    steps: tuple[str, ...]
    prior: int
    crashes: int
    skipped: bool


@dataclass(frozen=True)
class Expected:
    outcome: Outcome | None
    executions: int
    attempts: int


def model(item: Scripted, retry: Retry, max_crashes: int) -> Expected:
    """How an item must end."""
    if item.skipped:
        return Expected(None, 0, 0)
    if item.crashes >= max_crashes:
        return Expected(Outcome.CRASHED, 0, item.prior)
    executions = 0
    while True:
        executions += 1
        step = item.steps[min(executions, len(item.steps)) - 1].removesuffix("-later")
        attempts = item.prior + executions
        if step == "ok":
            return Expected(Outcome.SUCCEEDED, executions, attempts)
        if step == "final" or attempts >= retry.attempts:
            return Expected(Outcome.FAILED, executions, attempts)


def act(step: str, position: int) -> int:
    if step.startswith("retry"):
        raise OSError(position)
    if step.startswith("final"):
        raise KeyError(position)
    return position


items = st.builds(
    Scripted,
    st.lists(st.sampled_from(STEPS), min_size=1, max_size=4).map(tuple),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from((False, False, False, True)),
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Host]:
    with Host(name="schedules") as host:
        yield host


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    workload=st.lists(items, max_size=60),
    attempts=st.integers(1, 4),
    concurrency=st.integers(1, 5),
    coroutine=st.booleans(),
    keys=st.integers(0, 3),
    partial=st.booleans(),
)
def test_every_item_ends_as_the_model_says(
    shared: Host,
    workload: list[Scripted],
    attempts: int,
    concurrency: int,
    coroutine: bool,
    keys: int,
    partial: bool,
) -> None:
    retry = Retry(attempts=attempts, base=0, jitter="none", on=(OSError,), not_on=())
    seen = [0] * len(workload)

    def step_of(position: int) -> str:
        item = current_item()
        assert item is not None
        assert item.index == position
        seen[position] += 1
        assert item.attempt == workload[position].prior + seen[position]
        return workload[position].steps[min(seen[position], len(workload[position].steps)) - 1]

    def sync(position: int) -> int:
        return act(step_of(position), position)

    async def suspending(position: int) -> int:
        step = step_of(position)
        if step.endswith("-later"):
            await asyncio.sleep(0)
        return act(step, position)

    limits = [shared.limit("keyed", concurrency=1, keyed=True)] if keys else []
    lane = shared.lane(
        "t",
        suspending if coroutine else sync,
        TaskPolicy(concurrency=concurrency, retry=retry, max_crashes=2),
        limits=limits,
        keys=[lambda position: position % keys] if keys else [],
    )
    run = lane.start(
        list(range(len(workload))),
        skip=bitmap([item.skipped for item in workload]),
        attempts=bytes(item.prior for item in workload),
        crashes=bytes(item.crashes for item in workload),
    )
    takes: list[Settled] = []
    while partial and not run.wait(0.0005):
        takes.append(run.take())
    assert run.wait(PATIENCE_S)
    takes.append(run.take())

    check(workload, [model(item, retry, 2) for item in workload], takes, seen)


def bitmap(flags: list[bool]) -> bytes:
    bits = bytearray((len(flags) + 7) // 8)
    for position, flag in enumerate(flags):
        bits[position // 8] |= flag << position % 8
    return bytes(bits)


def check(workload: list[Scripted], expected: list[Expected], takes: list[Settled], seen: list[int]) -> None:
    values: dict[int, object] = {}
    failures: dict[int, tuple[Outcome, int]] = {}
    for taken in takes:
        positions = taken.ok_positions
        if positions is None:
            positions = list(range(taken.ok_first, taken.ok_first + len(taken.ok_values)))
        assert positions == sorted(positions)
        assert taken.count == len(positions) + len(taken.failures) == sum(taken.outcomes.values())
        assert not set(positions) & set(values)
        values |= dict(zip(positions, taken.ok_values, strict=True))
        failures |= {failure.position: (failure.outcome, failure.attempts) for failure in taken.failures}
        if taken.bits:
            marked = {i for i in range(len(workload)) if taken.bits[i // 8] >> i % 8 & 1}
            assert marked == {*positions, *(failure.position for failure in taken.failures)}

    assert seen == [one.executions for one in expected]
    assert values == {i: i for i, one in enumerate(expected) if one.outcome is Outcome.SUCCEEDED}
    assert failures == {
        i: (one.outcome, one.attempts) for i, one in enumerate(expected) if one.outcome not in (None, Outcome.SUCCEEDED)
    }
    assert sum(taken.executions for taken in takes) == sum(seen)
    assert sum(taken.retries for taken in takes) == sum(max(0, one.executions - 1) for one in expected)
    ran = sum(one.executions > 0 for one in expected)
    assert sum(taken.stats.get("settling_count", 0) for taken in takes) == ran
    assert sum(taken.stats.get("running_count", 0) for taken in takes) == sum(seen)
