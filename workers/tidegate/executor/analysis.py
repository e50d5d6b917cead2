"""Analyses of ``tidegate analyze``: a workload run all at once, in batches or as a chain, and what its shape costs."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tidegate.executor import _native
from tidegate.executor.executor import Executor
from tidegate.executor.kinds import BYTES, CFunction
from tidegate.executor.outcomes import Outcomes
from tidegate.executor.report import Finding

Shape = Literal["concurrency", "batch", "chain"]

#: struct tg_simulation and struct tg_simulated of simulate.h.
_SIMULATION = struct.Struct("=QQdQQII")
_SIMULATED = struct.Struct("=QQII")
#: Items of the measurement that shows what the pool of item records gains.
POOL_ITEMS = 100_000


@dataclass(frozen=True, slots=True)
class Simulation:
    """Work that sleeps for a random time and sometimes fails. Times in milliseconds; the same seed, the same work."""

    min_ms: float = 100.0
    max_ms: float = 1000.0
    failure_rate: float = 0.10
    seed: int = 1

    def items(self, count: int) -> list[bytes]:
        """One packed simulation for each item."""
        low, high = round(self.min_ms * 1e6), round(self.max_ms * 1e6)
        return [_SIMULATION.pack(low, high, self.failure_rate, self.seed, number, 1, 0) for number in range(count)]


@dataclass(frozen=True, slots=True)
class Link:
    """One item of an analysis: how long it ran, and how it ended."""

    index: int
    ok: bool
    run_s: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was measured. ``ideal_s``: the shortest time possible for the same items at this concurrency and shape."""

    shape: Shape
    work: str
    items: int
    concurrency: int
    batch: int
    pool: bool
    wall_s: float
    succeeded: int
    failed: int
    run_s: dict[str, float]
    average_concurrency: float
    ideal_s: float
    efficiency: float
    links: tuple[Link, ...]
    findings: tuple[Finding, ...]

    @property
    def items_per_s(self) -> float:
        return self.items / self.wall_s if self.wall_s else 0.0


@dataclass(frozen=True, slots=True)
class PoolEffect:
    """The same no-op items with item records from slabs and with an allocation each: nanoseconds per item, medians."""

    items: int
    with_pool_ns: float
    without_pool_ns: float
    records_allocated_with: int
    records_allocated_without: int

    @property
    def gain(self) -> float:
        """Share of the time per item that the pool saves."""
        return 1 - self.with_pool_ns / self.without_pool_ns if self.without_pool_ns else 0.0


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain is as long as the sum of its links: that is its critical path, whatever the concurrency."""

    critical_path_s: float
    per_link_s: float
    slowest_link: int
    slowest_s: float
    overhead_s: float
    if_independent_s: float


#: Runs items and answers a link for each.
Runner = Callable[[Sequence[int]], list[Link]]


def runner_of(executor: Executor, work: Simulation | Callable[..., Any], count: int) -> Runner:
    """Runs items of the work by their numbers, through ``executor``."""
    if isinstance(work, Simulation):
        function = CFunction(_native.simulate_address, BYTES, _SIMULATED.size, name="simulation", blocks=True)
        packed = work.items(count)

        def simulate(numbers: Sequence[int]) -> list[Link]:
            outcomes = executor.map(function, [packed[number] for number in numbers])
            return [_simulated(number, outcomes, place) for place, number in enumerate(numbers)]

        return simulate

    def call(numbers: Sequence[int]) -> list[Link]:
        outcomes = executor.map(work, list(numbers))
        return [
            Link(number, one.ok, one.run_s, "" if one.ok else f"{type(one.error).__name__}: {one.error}")
            for number, one in zip(numbers, outcomes, strict=True)
        ]

    return call


def _simulated(number: int, outcomes: Outcomes, place: int) -> Link:
    ok = outcomes[place].ok
    _planned, took_ns, _failed, _reserved = _SIMULATED.unpack(outcomes.raw(place))
    return Link(number, ok, took_ns / 1e9, "" if ok else "simulated failure")


def analyse(
    executor: Executor,
    work: Simulation | Callable[..., Any],
    *,
    shape: Shape,
    count: int,
    batch: int,
    pool: bool,
    name: str,
) -> Analysis:
    """Run ``count`` items in a shape and measure it."""
    run = runner_of(executor, work, count)
    links: list[Link] = []
    began = time.perf_counter()
    if shape == "concurrency":
        links = run(range(count))
    elif shape == "batch":
        for first in range(0, count, batch):
            links += run(range(first, min(count, first + batch)))
    else:
        for number in range(count):
            links += run([number])
    wall_s = time.perf_counter() - began
    return _analysis(executor, links, shape=shape, batch=batch, pool=pool, name=name, wall_s=wall_s)


def _analysis(
    executor: Executor, links: list[Link], *, shape: Shape, batch: int, pool: bool, name: str, wall_s: float
) -> Analysis:
    concurrency = 1 if shape == "chain" else executor.policy.concurrency
    times = sorted(link.run_s for link in links)
    total = sum(times)
    ideal_s = _ideal_s([link.run_s for link in links], shape, concurrency, batch)
    failed = sum(not link.ok for link in links)
    analysis = Analysis(
        shape,
        name,
        len(links),
        concurrency,
        batch,
        pool,
        wall_s,
        len(links) - failed,
        failed,
        {
            "mean": total / len(times) if times else 0.0,
            "min": times[0] if times else 0.0,
            **{f"p{share}": _quantile(times, share / 100) for share in (50, 95, 99)},
            "max": times[-1] if times else 0.0,
        },
        total / wall_s if wall_s else 0.0,
        ideal_s,
        ideal_s / wall_s if wall_s else 1.0,
        tuple(links),
        (),
    )
    return replace(analysis, findings=tuple(_findings(analysis)))


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _ideal_s(times: Sequence[float], shape: Shape, concurrency: int, batch: int) -> float:
    """A lower bound: nothing ends before its longest item, and nothing before all work divided by the concurrency."""
    if shape == "chain":
        return sum(times)
    stretches = [times] if shape == "concurrency" else [times[at : at + batch] for at in range(0, len(times), batch)]
    return sum(max(*part, sum(part) / concurrency) for part in stretches if part)


def _findings(analysis: Analysis) -> list[Finding]:
    found: list[Finding] = []
    if analysis.items and analysis.failed / analysis.items > 0.10:
        found.append(
            Finding(
                "many-failures",
                "error",
                f"{analysis.failed / analysis.items:.1%} of the items failed",
                "retry what passes, fix what does not",
            )
        )
    if analysis.shape == "batch":
        at_once = _ideal_s([link.run_s for link in analysis.links], "concurrency", analysis.concurrency, 0)
        if analysis.wall_s > 1.2 * at_once:
            found.append(
                Finding(
                    "batch-barrier",
                    "warning",
                    f"waiting for each batch's slowest item costs {analysis.wall_s - at_once:.2f} s of {analysis.wall_s:.2f} s",
                    "run all items under one concurrency limit instead: an item then starts when any other ends",
                )
            )
    if analysis.shape == "concurrency" and analysis.average_concurrency < 0.5 * analysis.concurrency:
        found.append(
            Finding(
                "idle-concurrency",
                "info",
                f"{analysis.average_concurrency:.1f} items ran at once on average, of {analysis.concurrency} allowed",
                "hand over more items, or lower the concurrency: it would change nothing",
            )
        )
    if analysis.run_s["mean"] > 5:
        found.append(Finding("slow-items", "warning", f"an item runs {analysis.run_s['mean']:.1f} s", "split items"))
    return found


def chain_of(analysis: Analysis, concurrency: int) -> Chain:
    """What the order of a chain costs. ``if_independent_s``: the time if its links did not need each other."""
    times = [link.run_s for link in analysis.links]
    slowest = max(range(len(times)), key=times.__getitem__, default=0)
    path = sum(times)
    return Chain(
        path,
        path / len(times) if times else 0.0,
        slowest,
        times[slowest] if times else 0.0,
        max(0.0, analysis.wall_s - path),
        _ideal_s(times, "concurrency", concurrency, 0),
    )


def pool_effect(items: int = POOL_ITEMS, rounds: int = 5) -> PoolEffect:
    """Measures the pool: alternates rounds with it and without it, and takes the best of each, as noise only adds."""
    numbers = list(range(items))
    times: dict[bool, list[float]] = {True: [], False: []}
    allocated: dict[bool, int] = {}
    with Executor(concurrency=8) as pooled, Executor(concurrency=8, slabs=False) as plain:
        executors = {True: pooled, False: plain}
        for number in range(rounds + 1):
            for slabs, executor in executors.items():
                began = time.perf_counter()
                executor.map(_nothing, numbers)
                if number:  # the first round warms up
                    times[slabs].append((time.perf_counter() - began) / items * 1e9)
        allocated[True] = pooled.host.stats()["slab_allocations"]
        allocated[False] = plain.host.stats()["item_allocations"]
    best = {slabs: min(found) for slabs, found in times.items()}
    return PoolEffect(items, best[True], best[False], allocated[True], allocated[False])


def _nothing(_value: int) -> None:
    return None
