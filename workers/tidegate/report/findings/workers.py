"""What telemetry says of the worker processes themselves: memory, idleness, and whether its numbers agree. Sampled."""

from __future__ import annotations

from tidegate.model.plain import visible
from tidegate.report.facts import Facts, is_waiting
from tidegate.report.findings.base import Finding, Rule, Severity
from tidegate.report.findings.bottleneck import IDLE_SHARE, MIN_SAMPLED_S, average_ready
from tidegate.report.units import percent, share, size

#: Part of the soft mark from which memory counts as near it.
NEAR_MARK = 0.9
DISAGREE = 0.5
MIN_CROSS_CHECK_S = 10.0
MIN_MISSING_SHARE = 0.01


def memory_near_mark(facts: Facts) -> Finding | None:
    """A process's memory came near the mark at which it stops claiming, or crossed it."""
    known = [process for process in facts.sampled.processes if process.memory_limit_bytes]
    if not known:
        return None
    worst = max(known, key=lambda process: process.memory_share)
    soft = sum(process.pressure_soft for process in known)
    hard = sum(process.pressure_hard for process in known)
    if worst.memory_share < NEAR_MARK * facts.memory_soft and not soft and not hard:
        return None
    crossed = f"; the soft mark was crossed {soft} times, the hard one {hard} times" if soft or hard else ""
    return Finding(
        Severity.CRITICAL if hard else Severity.WARNING,
        "memory_near_mark",
        "Memory crossed its mark" if soft or hard else "Memory came near its mark",
        f"process {worst.pid} on {visible(worst.host, 100)} peaked at {size(worst.memory_peak_bytes)}, "
        f"{share(worst.memory_peak_bytes, worst.memory_limit_bytes)} of its limit of {size(worst.memory_limit_bytes)}; "
        f"it stops claiming at {percent(facts.memory_soft)}{crossed} (sampled)",
        "Lower the task's concurrency or the slots, stream instead of loading whole items, or give a process more memory.",
    )


def idle_while_waiting(facts: Facts) -> Finding | None:
    """Slots were free while batches were ready."""
    sampled = facts.sampled
    if sampled.covered_s < MIN_SAMPLED_S or not sampled.slots or sampled.idle_share < IDLE_SHARE:
        return None
    waiting = average_ready(facts)
    now = facts.progress.ready_batches if is_waiting(facts.progress) else 0
    if max(waiting, now) < sampled.slots:
        return None
    return Finding(
        Severity.WARNING,
        "idle_while_waiting",
        "Workers were idle while batches waited",
        f"slots held no batch {percent(sampled.idle_share)} of the time (sampled over {sampled.covered_s:,.0f} s); "
        f"{waiting:,.1f} batches were ready on average for {sampled.slots} slots"
        + (f", {now:,} are ready now" if now else "")
        + (f"; {share(sampled.empty_claims, sampled.claims)} of the claims found nothing" if sampled.claims else ""),
        "Look for tickets that do not arrive: a slow broker other than the ledger's, claiming stopped by memory pressure, "
        "or workers that serve other queues. tidegate doctor shows all three.",
    )


def measures_disagree(facts: Facts) -> Finding | None:
    """Little's law: items at once by the ledger's times and by the workers' own integral should agree."""
    sampled = facts.sampled
    covered = sampled.covered_s >= max(MIN_CROSS_CHECK_S, 0.8 * facts.elapsed_s)
    exact, seen = facts.average_running, sampled.average_running
    if not covered or not facts.progress.ended or max(exact, seen) < 1:
        return None
    if abs(exact - seen) <= DISAGREE * max(exact, seen):
        return None
    return Finding(
        Severity.INFO,
        "measures_disagree",
        "Workers ran more of this task than the job accounts for" if seen > exact else "Part of the job ran unseen",
        f"{exact:.3g} items at once by the ledger, {seen:.3g} by the workers (sampled over {sampled.covered_s:,.0f} s)",
        "Another job of the same task shared the workers: read what is sampled here as being about both."
        if seen > exact
        else "Records are missing, or workers died with their last second; read what is sampled here as a lower bound.",
    )


def telemetry_missing(facts: Facts) -> Finding | None:
    """Telemetry records were lost from between others."""
    sampled = facts.sampled
    if not sampled.missing or sampled.missing < MIN_MISSING_SHARE * (sampled.records + sampled.missing):
        return None
    return Finding(
        Severity.INFO,
        "telemetry_missing",
        f"{sampled.missing:,} telemetry records are missing",
        f"{sampled.records:,} were read; what is sampled is a lower bound, what is exact is not concerned",
        "Raise telemetry_keep if the job is long, or see whether workers could reach the server all the time.",
    )


WORKER_RULES: tuple[Rule, ...] = (memory_near_mark, idle_while_waiting, measures_disagree, telemetry_missing)
