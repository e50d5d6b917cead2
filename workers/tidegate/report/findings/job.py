"""What the state of a job says: held, without workers, or losing its leases. Exact, from the ledger."""

from __future__ import annotations

from tidegate.model.outcome import JobState
from tidegate.model.plain import visible
from tidegate.report.facts import Facts, is_waiting
from tidegate.report.findings.base import Finding, Rule, Severity

#: A worker may take this long to start or to be heard of again, seconds.
WORKER_GRACE_S = 5.0


def parked(facts: Facts) -> Finding | None:
    """The job waits for an operator."""
    progress = facts.progress
    if progress.state is not JobState.PARKED:
        return None
    return Finding(
        Severity.CRITICAL,
        "parked",
        "The job is parked: nothing of it runs until somebody resumes it",
        visible(progress.reason, 500) or "no reason was given",
        f"Remove the reason (a task that workers do not know: start a worker whose app registers it), then: "
        f"tidegate resume {progress.job_id}",
    )


def paused(facts: Facts) -> Finding | None:
    """Somebody paused the job and there is work left."""
    progress = facts.progress
    if not progress.paused or progress.ended or progress.state is JobState.PARKED:
        return None
    return Finding(
        Severity.INFO,
        "paused",
        "The job is paused",
        f"{progress.pending:,} items are pending" + (f"; {visible(progress.reason, 300)}" if progress.reason else ""),
        f"tidegate resume {progress.job_id}",
    )


def cut_short(facts: Facts) -> Finding | None:
    """The producer died before it had submitted everything."""
    progress = facts.progress
    if not progress.cut_short:
        return None
    resumable = progress.spec is not None and progress.spec.chunk_batches
    return Finding(
        Severity.CRITICAL,
        "cut_short",
        f"The submission was cut short: {progress.total:,} items came, and more may have been meant",
        visible(progress.reason, 500),
        f"Submit the same items again with id={progress.job_id!r}: the job goes on where it stopped."
        if resumable
        else "Submit the rest again; with an id of yours (map(…, id=…)) a submission that was cut short can be resumed.",
    )


def no_worker(facts: Facts) -> Finding | None:
    """Batches are ready, nobody holds one, and no live worker serves the queue."""
    progress = facts.progress
    waited_s = (progress.now_ms - progress.created_ms) / 1e3
    if facts.live_workers or progress.running_batches or not is_waiting(progress) or waited_s < WORKER_GRACE_S:
        return None
    queue = visible(progress.queue, 64)
    elsewhere = f"; {facts.live_elsewhere} live worker processes serve other queues" if facts.live_elsewhere else ""
    return Finding(
        Severity.CRITICAL,
        "no_worker",
        f"The job waits in queue {queue} and no live worker serves it",
        f"{progress.ready_batches:,} batches are ready, submitted {waited_s:,.0f} s ago{elsewhere}",
        f"Start one that serves {queue} (tidegate worker MODULE:APP), with the same TIDEGATE_URL; tidegate doctor shows it.",
    )


def lost_leases(facts: Facts) -> Finding | None:
    """Workers vanished or fell silent while they held a batch, or came back too late with its outcome."""
    lost, stale = facts.progress.lost_leases, facts.progress.stale_refused
    if not lost and not stale:
        return None
    return Finding(
        Severity.WARNING,
        "lost_leases",
        f"{lost:,} {'batch was' if lost == 1 else 'batches were'} taken from a silent worker"
        if lost
        else f"{stale:,} {'commit' if stale == 1 else 'commits'} came too late and changed nothing",
        f"{lost:,} leases expired; {stale:,} late commits refused; items of these batches may have been executed twice, "
        "none was counted twice",
        "See whether workers were killed (out of memory, a deploy shorter than grace_s) or frozen for longer than lease_s. "
        "Make the function idempotent with current_item().idempotency_key.",
    )


JOB_RULES: tuple[Rule, ...] = (parked, cut_short, no_worker, paused, lost_leases)
