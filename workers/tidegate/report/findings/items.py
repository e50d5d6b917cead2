"""What the outcomes and run times of a job's items say. All of it is exact, from the ledger."""

from __future__ import annotations

from tidegate.model.outcome import Outcome
from tidegate.model.plain import visible
from tidegate.model.stats import Distribution
from tidegate.report.facts import Facts
from tidegate.report.findings.base import Finding, Rule, Severity
from tidegate.report.units import duration, share

LONG_RUN_NS = 5_000_000_000
MIN_RUNS = 5
FAILURE_SHARE = 0.10
MIN_TRIED = 20
RETRY_SHARE = 1 / 3
TIMEOUT_SHARE = 0.01
MIN_TIMEOUTS = 3
STRAGGLER_RATIO = 10
STRAGGLER_NS = 100_000_000
MIN_FOR_P99 = 100


def long_items(facts: Facts) -> Finding | None:
    """Mean run time over 5 s."""
    running = _running(facts)
    if running.count < MIN_RUNS or running.mean_ns <= LONG_RUN_NS:
        return None
    return Finding(
        Severity.WARNING,
        "long_items",
        f"An item runs for {duration(running.mean_ns)} on average, over {duration(LONG_RUN_NS)}",
        f"{running.count:,} runs; p50 {duration(running.quantile_ns(0.5))}, p99 {duration(running.quantile_ns(0.99))}, "
        f"longest {duration(running.max_ns)}",
        "Split items into smaller ones: a retry or a crash then repeats less, and one item does not hold up the job's end. "
        "If they wait for something, make the function async and raise concurrency.",
    )


def failure_rate(facts: Facts) -> Finding | None:
    """More than 10 % of the items that were run did not succeed."""
    if facts.tried < MIN_TRIED or facts.unsuccessful <= FAILURE_SHARE * facts.tried:
        return None
    rate = facts.unsuccessful / facts.tried
    evidence = [f"{facts.unsuccessful:,} of {facts.tried:,} items that ran"]
    if facts.errors:
        kind, count = max(facts.errors.items(), key=lambda entry: entry[1])
        evidence.append(f"{visible(kind, 200)} is {share(count, sum(facts.errors.values()))} of the errors")
    group = facts.groups[0] if facts.groups else None
    if group is not None:
        evidence.append(f"fingerprint {group.fingerprint}" + (f" at {group.place}" if group.place else ""))
    if facts.origin.file:
        evidence.append(f"enqueued at {visible(facts.origin.file, 300)}:{facts.origin.line}")
    return Finding(
        Severity.CRITICAL if rate > 0.5 else Severity.WARNING,
        "failure_rate",
        f"{share(facts.unsuccessful, facts.tried)} of the items did not succeed",
        "; ".join(evidence),
        "Look at the first group of failures below, repair the function or the input, then run the dead letters again: "
        f"tidegate replay {facts.progress.job_id}",
    )


def retries_dominate(facts: Facts) -> Finding | None:
    """More than a third of all executions were repeats."""
    attempts, retries = facts.progress.attempts, facts.progress.retries
    if attempts < MIN_TRIED or retries <= RETRY_SHARE * attempts:
        return None
    backoff = facts.times.get("backoff", Distribution())
    return Finding(
        Severity.WARNING,
        "retries_dominate",
        f"{share(retries, attempts)} of all executions were retries",
        f"{retries:,} retries in {attempts:,} executions of {facts.progress.done:,} items; "
        f"{duration(backoff.sum_ns)} of item time waiting for the next attempt",
        "Find out why first attempts fail. Retry only errors that pass (Retry(on=…)), give Retry a budget, "
        "or put a Limit below what the other side accepts.",
    )


def timeouts(facts: Facts) -> Finding | None:
    """At least 1 % of the items ran into their timeout."""
    count = facts.progress.outcomes.get(Outcome.TIMED_OUT, 0)
    if count < MIN_TIMEOUTS or count < TIMEOUT_SHARE * facts.tried:
        return None
    limit = f"the timeout is {facts.spec.timeout_s:g} s; " if facts.spec and facts.spec.timeout_s else ""
    p99 = duration(_running(facts).quantile_ns(0.99))
    return Finding(
        Severity.WARNING,
        "timeouts",
        f"{count:,} items timed out",
        f"{share(count, facts.tried)} of the items that ran; {limit}p99 of run time is {p99}",
        "If the slow ones are worth waiting for, raise timeout above the p99; if not, let what they call give up earlier.",
    )


def crashes(facts: Facts) -> Finding | None:
    """Items that killed their process until they were given up."""
    count = facts.progress.outcomes.get(Outcome.CRASHED, 0)
    if not count:
        return None
    seen = [str(s.index) for group in facts.groups for s in group.samples if s.outcome is Outcome.CRASHED]
    return Finding(
        Severity.CRITICAL,
        "crashes",
        f"{count:,} {'item' if count == 1 else 'items'} killed the worker process that ran them",
        f"given up after {facts.spec.max_crashes if facts.spec else 'several'} crashes each"
        + (f"; index {', '.join(seen[:5])}" if seen else ""),
        "Run these items alone (python -X faulthandler): a native library, their memory, or a hard timeout ends the process.",
    )


def stragglers(facts: Facts) -> Finding | None:
    """Batches of many items in which a few take far longer than the rest: the batch is as slow as its slowest."""
    running = _running(facts)
    if running.count < MIN_FOR_P99 or facts.items_per_batch < 10:
        return None
    p50, p99 = running.quantile_ns(0.5), running.quantile_ns(0.99)
    if p99 < STRAGGLER_NS or p99 < STRAGGLER_RATIO * p50:
        return None
    ratio = p99 / max(p50, 1)
    return Finding(
        Severity.INFO,
        "stragglers",
        f"The slowest 1 % of items take {ratio:,.0f} times the median, in batches of {facts.items_per_batch:,.0f}",
        f"{running.count:,} runs; p50 {duration(p50)}, p99 {duration(p99)}, longest {duration(running.max_ns)}",
        "Use a smaller batch_size, so that slow items hold up fewer others, or give them a timeout or a task of their own.",
    )


def _running(facts: Facts) -> Distribution:
    return facts.times.get("running", Distribution())


ITEM_RULES: tuple[Rule, ...] = (crashes, failure_rate, timeouts, retries_dominate, long_items, stragglers)
