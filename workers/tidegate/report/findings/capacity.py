"""What the time of items and the concurrency of workers say together: where it is lost, and what adding workers would do."""

from __future__ import annotations

from tidegate.model.stats import Distribution
from tidegate.report.facts import Facts
from tidegate.report.findings.base import Finding, Rule, Severity
from tidegate.report.findings.bottleneck import (
    MIN_RUNS,
    MIN_SAMPLED_S,
    MIN_WAIT_S,
    Bottleneck,
    Kind,
    average_ready,
    bottleneck,
    item_time,
    leading_limit,
)
from tidegate.report.units import duration, percent, share

LOW_EFFICIENCY = 0.5
LEDGER_SHARE = 0.3
SMALL_BATCH_NS = 100_000_000
MIN_COMMITS = 50


def limit_waits(facts: Facts) -> Finding | None:
    """Items waited for a limit longer than they ran."""
    time = item_time(facts)
    runs = facts.times.get("running", Distribution()).count
    if runs < MIN_RUNS or time["limited"] <= time["running"] or time["limited"] < MIN_WAIT_S * 1e9:
        return None
    name = leading_limit(facts)
    weights = facts.sampled.limit_weights
    seen = (
        f"; {share(max(weights.values()), sum(weights.values()))} of the waiting seen was for it"
        if len(weights) > 1
        else ""
    )
    return Finding(
        Severity.WARNING,
        "limit_waits",
        f"Items wait for limit {name} longer than they run" if name else "Items wait for a limit longer than they run",
        f"{duration(time['limited'])} waiting for a limit, {duration(time['running'])} running, over {runs:,} runs{seen}",
        "More workers would add nothing. Raise the limit if the other side allows it, or ask it for less: fewer calls an item, "
        "several items a call, a cache.",
    )


def low_concurrency(facts: Facts) -> Finding | None:
    """On average less than half of the configured concurrency was in use."""
    configured, efficiency = facts.sampled.concurrency_configured, facts.efficiency
    enough = facts.times.get("running", Distribution()).count >= MIN_RUNS and facts.sampled.covered_s >= MIN_SAMPLED_S
    if not enough or efficiency is None or configured < 2 or efficiency >= LOW_EFFICIENCY:
        return None
    time = item_time(facts)
    waits = {name: time[name] for name in ("limited", "backoff", "settling")}
    most = max(waits, key=lambda name: waits[name])
    return Finding(
        Severity.WARNING,
        "low_concurrency",
        f"{facts.average_running:.3g} items ran at once on average, "
        f"{share(facts.average_running, configured)} of what is configured",
        f"configured {configured:,.0f} over {len(facts.sampled.processes)} processes, peak {facts.sampled.concurrency_peak:,} "
        f"(sampled over {facts.sampled.covered_s:,.0f} s); slots were empty {percent(facts.sampled.idle_share)} of the time",
        _LOW_REMEDY[
            most if waits[most] > time["running"] else "input" if facts.sampled.idle_share > 0.5 else "batches"
        ],
    )


_LOW_REMEDY = {
    "limited": "Items wait for a limit: raise it, or lower concurrency to what the limit lets through.",
    "backoff": "Items wait for retries: repair what fails first.",
    "settling": "Items wait for their batch to be committed: use smaller batches (batch_size), or more slots a process.",
    "input": "Workers are short of batches: submit faster (a generator that computes is slow), use smaller batches so that "
    "more of them exist at once, or run fewer workers.",
    "batches": "Give a process more slots or larger batches, so that it holds enough items to fill its concurrency; "
    "or lower concurrency to what is used.",
}


def small_batches(facts: Facts) -> Finding | None:
    """Batches hold so little work that calls to the ledger take a good part of the slots' time."""
    sampled = facts.sampled
    busy_ns = sampled.slot_ns - sampled.idle_ns
    if sampled.commits < MIN_COMMITS or sampled.covered_s < MIN_SAMPLED_S or busy_ns <= 0:
        return None
    batches = facts.progress.batches_done
    work_ns = facts.times.get("running", Distribution()).sum_ns / batches if batches else 0.0
    if sampled.redis_ns <= LEDGER_SHARE * busy_ns or not batches or work_ns >= SMALL_BATCH_NS:
        return None
    return Finding(
        Severity.WARNING,
        "small_batches",
        f"Batches are too small: the ledger takes {share(min(sampled.redis_ns, busy_ns), busy_ns)} of the workers' time",
        f"{facts.items_per_batch:,.1f} items and {duration(work_ns)} of work a batch; {sampled.commits:,} commits, "
        f"{duration(sampled.redis_ns / sampled.commits)} in the ledger for each (sampled)",
        "Leave batch_size out, so that it adapts to about a second of work, or set it at least ten times higher.",
    )


def adding_workers(facts: Facts) -> Finding | None:
    """What more workers would do, when one cause stands out."""
    found = bottleneck(facts)
    if found is None:
        return None
    title, remedy = _ADDING[found.kind]
    return Finding(
        Severity.INFO, "adding_workers", title.format(name=found.name or "a limit"), _evidence(facts, found), remedy
    )


_ADDING = {
    Kind.LIMIT: (
        "More workers would add nothing: {name} decides the speed",
        "Raise the limit or ask for less; or run fewer workers at the same speed.",
    ),
    Kind.RETRIES: (
        "More workers would add little: most item time is spent waiting for retries",
        "Repair what fails; more workers would only send more to it.",
    ),
    Kind.INPUT: (
        "More workers would add nothing: the workers there are wait for work",
        "Submit faster, or run fewer workers.",
    ),
    Kind.CPU: (
        "More processes would help where cores are free: these ones are busy computing",
        "Add processes up to the number of cores, then machines. More concurrency in a process would add nothing.",
    ),
    Kind.CONCURRENCY: (
        "More concurrency would help: items queue inside busy workers",
        "Raise the task's concurrency where its items mostly wait; where they compute, add processes on cores that are free.",
    ),
    Kind.SLOTS: (
        "More workers would help: batches wait and every slot is taken",
        "Add processes or slots. While batches wait, twice as many take about half the time.",
    ),
}


def _evidence(facts: Facts, found: Bottleneck) -> str:
    sampled = f"(sampled over {facts.sampled.covered_s:,.0f} s)"
    ready = f"{average_ready(facts):.3g} batches were ready on average"
    match found.kind:
        case Kind.LIMIT:
            return f"{percent(found.part)} of item time was waiting for a limit"
        case Kind.RETRIES:
            return f"{percent(found.part)} of item time was waiting for the next attempt"
        case Kind.INPUT:
            return f"slots held no batch {percent(found.part)} of the time {sampled}; {ready}"
        case Kind.CPU:
            return f"a process used {percent(found.part)} of a core on average {sampled}"
        case Kind.CONCURRENCY:
            time = item_time(facts)
            return (
                f"{percent(found.part)} of the configured concurrency in use; {duration(time['queued'])} queued for it"
            )
        case Kind.SLOTS:
            return f"slots held a batch {percent(found.part)} of the time {sampled}; {ready}"


CAPACITY_RULES: tuple[Rule, ...] = (limit_waits, low_concurrency, small_batches, adding_workers)
