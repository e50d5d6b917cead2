"""What holds a job back, and so what adding workers would do. Pure, and silent without evidence.

Item time that the ledger added up (exact) says what items waited for; slots without a batch (sampled) say whether workers
had something to do; the two together name one cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tidegate.model.plain import visible
from tidegate.model.stats import Distribution
from tidegate.report.facts import Facts

MIN_SAMPLED_S = 5.0
MIN_RUNS = 20
#: Less item time than this in all (seconds) is not worth a word.
MIN_WAIT_S = 1.0
#: Part of all item time from which one kind of waiting decides the speed.
MOST = 0.5
BUSY_IDLE_SHARE = 0.2
IDLE_SHARE = 0.5
CPU_BOUND_SHARE = 0.8
#: Below this it is not the configured concurrency that items queue for.
MIN_EFFICIENCY = 0.5


class Kind(StrEnum):
    """The causes that can be told apart."""

    LIMIT = "limit"
    RETRIES = "retries"
    INPUT = "input"
    CPU = "cpu"
    CONCURRENCY = "concurrency"
    SLOTS = "slots"


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """``name``: the limit, for that kind. ``part``: its share of the time it is judged by, 0 to 1."""

    kind: Kind
    part: float
    name: str = ""


def bottleneck(facts: Facts) -> Bottleneck | None:
    """The cause that the evidence names, or None."""
    running = facts.times.get("running", Distribution())
    if running.count < MIN_RUNS:
        return None
    waits = item_time(facts)
    total = sum(waits.values())
    for name, kind in (("limited", Kind.LIMIT), ("backoff", Kind.RETRIES)):
        if waits[name] >= MOST * total and waits[name] >= MIN_WAIT_S * 1e9:
            return Bottleneck(kind, waits[name] / total, leading_limit(facts) if kind is Kind.LIMIT else "")
    if facts.sampled.covered_s < MIN_SAMPLED_S or not facts.sampled.slot_ns:
        return None
    return _by_slots(facts, waits)


def _by_slots(facts: Facts, waits: Mapping[str, int]) -> Bottleneck | None:
    idle = facts.sampled.idle_share
    waiting = average_ready(facts)
    if idle >= IDLE_SHARE and waiting < 1:
        return Bottleneck(Kind.INPUT, idle)
    if idle > BUSY_IDLE_SHARE:
        return None
    interval_ns = sum(process.interval_ns for process in facts.sampled.processes)
    cpu = sum(process.cpu_ns for process in facts.sampled.processes) / interval_ns
    if cpu >= CPU_BOUND_SHARE:
        return Bottleneck(Kind.CPU, cpu)
    efficiency = facts.efficiency
    if waits["queued"] > waits["running"]:  # more slots would only lengthen the line inside the workers
        busy = efficiency is not None and efficiency >= MIN_EFFICIENCY
        return Bottleneck(Kind.CONCURRENCY, efficiency or 0.0) if busy else None
    if waiting >= 1:
        return Bottleneck(Kind.SLOTS, 1 - idle)
    return None


def item_time(facts: Facts) -> dict[str, int]:
    """Nanoseconds that items spent in each class once a worker had them."""
    return {
        name: facts.times.get(name, Distribution()).sum_ns
        for name in ("queued", "limited", "backoff", "running", "settling")
    }


def average_ready(facts: Facts) -> float:
    """Batches ready in the ledger at a time, on average: by Little's law the waiting of all items over the job's time, in
    items, and so many of them a batch."""
    ready = facts.times.get("ready", Distribution())
    if not facts.elapsed_s or not facts.items_per_batch:
        return 0.0
    return ready.sum_ns / (facts.elapsed_s * 1e9) / facts.items_per_batch


def leading_limit(facts: Facts) -> str:
    """The limit that most items were seen waiting for, or what the task's limits leave open; nothing when it has none."""
    weights = facts.sampled.limit_weights
    if weights:
        return visible(max(weights, key=lambda name: weights[name]), 100)
    named = [visible(limit, 100) for limit in facts.spec.limits[:8]] if facts.spec else []
    return " or ".join(named)
