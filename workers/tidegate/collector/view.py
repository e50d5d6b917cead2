"""The JSON that the API, the live events and ``tidegate top`` show: plain data, units in names, texts safe to show."""

from __future__ import annotations

from typing import Any

from tidegate.collector.aggregate import Aggregate
from tidegate.collector.history import Bucket, Ring
from tidegate.collector.jobs import JobsSnapshot
from tidegate.model.job import Progress
from tidegate.model.outcome import Outcome
from tidegate.model.plain import visible

SCHEMA_VERSION = 1

Document = dict[str, Any]

#: What one step of history shows: name, field of the bucket, factor (per second for those that add up).
_SERIES = (
    ("succeeded_per_s", "succeeded", 1.0),
    ("unsuccessful_per_s", "unsuccessful", 1.0),
    ("retried_per_s", "retried", 1.0),
    ("busy", "busy_ns", 1e-9),
    ("queued", "queued_ns", 1e-9),
    ("limited", "limited_ns", 1e-9),
    ("backoff", "backoff_ns", 1e-9),
    ("running", "running_ns", 1e-9),
    ("settling", "settling_ns", 1e-9),
)
_LEVELS = (
    ("memory_bytes", "memory_bytes"),
    ("running_items", "running"),
    ("concurrency", "concurrency"),
    ("workers", "workers"),
)


def overview(aggregate: Aggregate, jobs: JobsSnapshot, now_ms: int) -> Document:
    """How everything stands: totals since the beginning, what is now, the last minute."""
    with aggregate.lock:
        now = aggregate.now()
        minute = [bucket for _, bucket in list(aggregate.seconds.points(now_ms))[-60:]]
        counts = {str(outcome): 0 for outcome in Outcome} | {"retried": 0}
        for totals in aggregate.tasks.values():
            for name in counts:
                counts[name] += totals.counts.get(name, 0)
    return {
        "schema_version": SCHEMA_VERSION,
        "at_ms": now_ms,
        "now": now,
        "totals": counts,
        "last_minute": _summary(minute),
        "jobs": jobs.by_state(),
        "ready_batches": jobs.ready_batches,
        "oldest_ready_s": jobs.oldest_ready_ms / 1e3,
        "pending_items": jobs.pending_items,
        "limits_waited_for": {visible(name, 100): count for name, count in aggregate.waiting_for_limits().items()},
    }


def _summary(buckets: list[Bucket]) -> Document:
    succeeded = sum(bucket.succeeded for bucket in buckets)
    unsuccessful = sum(bucket.unsuccessful for bucket in buckets)
    heard = [index for index, bucket in enumerate(buckets) if bucket.slot_ns]
    seconds = max(1, len(buckets) - heard[0]) if heard else 1
    slot_ns = sum(bucket.slot_ns for bucket in buckets)
    idle_ns = sum(bucket.idle_ns for bucket in buckets)
    return {
        "items_per_s": round((succeeded + unsuccessful) / seconds, 3),
        "success_rate": round(succeeded / (succeeded + unsuccessful), 6) if succeeded + unsuccessful else None,
        "idle_share": round(min(1.0, idle_ns / slot_ns), 6) if slot_ns else None,
    }


def history(ring: Ring, now_ms: int) -> Document:
    """A ring as columns. Class times are item-seconds per second: how many items were in that class at once."""
    points = list(ring.points(now_ms))
    step_s = ring.width_ms / 1e3
    return {
        "step_ms": ring.width_ms,
        "at_ms": [at_ms for at_ms, _ in points],
        **{
            name: [round(getattr(bucket, field) * factor / step_s, 4) for _, bucket in points]
            for name, field, factor in _SERIES
        },
        **{name: [getattr(bucket, field) for _, bucket in points] for name, field in _LEVELS},
    }


def job_row(progress: Progress) -> Document:
    """One job as the table shows it."""
    return {
        "id": visible(progress.job_id, 100),
        "task": visible(progress.task, 300),
        "queue": visible(progress.queue, 100),
        "state": str(progress.state),
        "paused": progress.paused,
        "cancelling": progress.cancelling,
        "ended": progress.ended,
        "reason": visible(progress.reason, 500),
        "total": progress.total,
        "done": progress.done,
        "pending": progress.pending,
        "outcomes": {str(outcome): progress.outcomes.get(outcome, 0) for outcome in Outcome},
        "attempts": progress.attempts,
        "retries": progress.retries,
        "batches": progress.batches,
        "batches_done": progress.batches_done,
        "ready_batches": progress.ready_batches,
        "running_batches": progress.running_batches,
        "delayed_batches": progress.delayed_batches,
        "oldest_ready_s": progress.oldest_ready_ms / 1e3,
        "lost_leases": progress.lost_leases,
        "created_ms": progress.created_ms or None,
        "started_ms": progress.started_ms or None,
        "finished_ms": progress.finished_ms or None,
    }
