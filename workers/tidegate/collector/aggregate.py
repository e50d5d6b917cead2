"""Aggregate: adds telemetry records up, each exactly once, in bounded memory.

A record is known by its worker (unique per process start) and its number. Adding the same stream twice, from any point that
lies before what is already in it, changes nothing. One thread adds; any thread may read under the same lock.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

from tidegate.collector.history import SECONDS, TEN_SECONDS, Bucket, Ring
from tidegate.collector.state import Seen, State, TaskTotals
from tidegate.telemetry.record import LaneDelta, TelemetryRecord

#: A process that was silent for this long is shown no more; one that says it stops is shown no more at once.
SILENT_MS = 15_000
#: Its number is remembered for longer, against records that come twice.
REMEMBER_MS = 3_600_000
MAX_SEEN = 20_000
MAX_HOLES = 64
#: Bounds of label values; what goes beyond is added up under OTHER.
MAX_TASKS = 200
MAX_ERRORS = 100
MAX_LIMITS = 100
MAX_WORKERS = 1_000
MAX_NAME = 200
#: Fields of a task's histograms: six classes of at most a thousand buckets.
MAX_FIELDS = 6_000
OTHER = "_other"

LANE_COUNTS = (
    "started",
    "succeeded",
    "failed",
    "timed_out",
    "cancelled",
    "crashed",
    "retried",
    "retries_refused",
    "busy_ns",
)
RECORD_SUMS = (
    "idle_ns",
    "claims",
    "empty_claims",
    "commits",
    "stale_commits",
    "redis_ns",
    "cpu_ns",
    "pressure_soft",
    "pressure_hard",
)
_NOW = ("memory_bytes", "running", "concurrency", "slots", "workers")


class Aggregate:
    """Totals since the beginning, live workers, and history."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.restore(State())

    def restore(self, state: State) -> None:
        """Begin from a checkpoint; what was there is forgotten."""
        with self.lock:
            self.position = state.position
            self.tasks = state.tasks
            self.errors = Counter(state.errors)
            self.sums = Counter(state.sums)
            self.workers: dict[str, tuple[int, TelemetryRecord]] = {}
            self.seconds = Ring(*SECONDS, kept=state.seconds)
            self.ten_seconds = Ring(*TEN_SECONDS, kept=state.ten_seconds)
            self._seen = state.seen
            self._now = Counter(dict.fromkeys(_NOW, 0))

    # -- adding ------------------------------------------------------------------------------------------------
    def add(self, entries: Iterable[tuple[str, TelemetryRecord]], position: str, *, malformed: int = 0) -> None:
        """Add records with their stream ids, oldest first. ``position`` lies behind the last entry read with them;
        ``malformed`` entries among them were no records."""
        with self.lock:
            for entry_id, record in entries:
                at_ms = int(entry_id.partition("-")[0])
                if self._is_new(record, at_ms):
                    self._add(record, at_ms)
            self.sums["malformed"] += malformed
            self.position = position

    def _is_new(self, record: TelemetryRecord, at_ms: int) -> bool:
        seen = self._seen.get(record.worker)
        if seen is None:
            self._seen[record.worker] = Seen(record.sequence, [], at_ms)
            self._forget_oldest()
            return True
        seen.at_ms = max(seen.at_ms, at_ms)
        if record.sequence > seen.sequence:
            gap = record.sequence - seen.sequence - 1
            seen.holes.extend(range(max(seen.sequence + 1, record.sequence - MAX_HOLES), record.sequence))
            lost = max(0, gap - MAX_HOLES) + max(0, len(seen.holes) - MAX_HOLES)
            del seen.holes[:-MAX_HOLES]
            self.sums["missing"] += lost
            seen.sequence = record.sequence
            return True
        if record.sequence in seen.holes:
            seen.holes.remove(record.sequence)
            return True
        self.sums["duplicates"] += 1
        return False

    def _forget_oldest(self) -> None:
        if len(self._seen) > MAX_SEEN:
            oldest = min(self._seen, key=lambda worker: self._seen[worker].at_ms)
            self.sums["missing"] += len(self._seen.pop(oldest).holes)

    def _add(self, record: TelemetryRecord, at_ms: int) -> None:
        self.sums["records"] += 1
        self.sums["slot_ns"] += record.interval_ns * record.slots
        self.sums.update({name: getattr(record, name) for name in RECORD_SUMS})
        buckets = [bucket for ring in (self.seconds, self.ten_seconds) if (bucket := ring.at(at_ms)) is not None]
        for bucket in buckets:
            bucket.idle_ns += record.idle_ns
            bucket.slot_ns += record.interval_ns * record.slots
        for lane in record.lanes:
            self._add_lane(lane, buckets)
        self._set_worker(record, at_ms)
        for bucket in buckets:
            for name in ("memory_bytes", "running", "concurrency", "workers"):
                setattr(bucket, name, max(getattr(bucket, name), self._now[name]))

    def _add_lane(self, lane: LaneDelta, buckets: list[Bucket]) -> None:
        name = lane.task[:MAX_NAME]
        if name not in self.tasks and len(self.tasks) >= MAX_TASKS:
            name = OTHER
        totals = self.tasks.setdefault(name, TaskTotals())
        for field in LANE_COUNTS:
            totals.counts[field] = totals.counts.get(field, 0) + getattr(lane, field)
        for key, value in lane.stats.items():
            if key in totals.stats or (len(totals.stats) < MAX_FIELDS and not key.endswith(("_min_ns", "_max_ns"))):
                totals.stats[key] = totals.stats.get(key, 0) + value
        for kind, count in lane.errors.items():
            shown = kind[:MAX_NAME]
            self.errors[shown if shown in self.errors or len(self.errors) < MAX_ERRORS else OTHER] += count
        for bucket in buckets:
            bucket.succeeded += lane.succeeded
            bucket.unsuccessful += lane.failed + lane.timed_out + lane.cancelled + lane.crashed
            bucket.retried += lane.retried
            bucket.busy_ns += lane.busy_ns
            bucket.queued_ns += lane.stats.get("queued_sum_ns", 0)
            bucket.limited_ns += lane.stats.get("limited_sum_ns", 0)
            bucket.backoff_ns += lane.stats.get("backoff_sum_ns", 0)
            bucket.running_ns += lane.stats.get("running_sum_ns", 0)
            bucket.settling_ns += lane.stats.get("settling_sum_ns", 0)

    # -- workers that are there now ----------------------------------------------------------------------------
    def _set_worker(self, record: TelemetryRecord, at_ms: int) -> None:
        before = self.workers.get(record.worker)
        if before is not None and before[1].sequence > record.sequence:
            return  # a late one: it counts, but says nothing about now
        self._drop_worker(record.worker)
        if not record.stopping and len(self.workers) < MAX_WORKERS:
            self.workers[record.worker] = (at_ms, record)
            self._now.update(_present(record))

    def _drop_worker(self, worker: str) -> None:
        entry = self.workers.pop(worker, None)
        if entry is not None:
            self._now.subtract(_present(entry[1]))

    def expire(self, now_ms: int) -> None:
        """Drop processes that fell silent; ``now_ms`` is the server's clock."""
        with self.lock:
            for worker in [worker for worker, (at_ms, _) in self.workers.items() if now_ms - at_ms > SILENT_MS]:
                self._drop_worker(worker)
            for worker in [worker for worker, seen in self._seen.items() if now_ms - seen.at_ms > REMEMBER_MS]:
                self.sums["missing"] += len(self._seen.pop(worker).holes)

    def now(self) -> dict[str, int]:
        """Sums over the live processes: memory_bytes, running, concurrency, slots, workers."""
        with self.lock:
            return dict(self._now)

    def waiting_for_limits(self) -> dict[str, int]:
        """Items that wait for each limit now."""
        with self.lock:
            found: Counter[str] = Counter()
            for _, record in self.workers.values():
                for lane in record.lanes:
                    for name, waiting in lane.limits.items():
                        shown = name[:MAX_NAME]
                        found[shown if shown in found or len(found) < MAX_LIMITS else OTHER] += waiting
            return dict(found)

    # -- surviving a restart -----------------------------------------------------------------------------------
    def state(self) -> State:
        """A copy of what a checkpoint keeps. The caller holds ``lock`` until it is encoded."""
        return State(
            position=self.position,
            tasks=self.tasks,
            errors=dict(self.errors),
            sums=dict(self.sums),
            seen=self._seen,
            seconds=self.seconds.kept(),
            ten_seconds=self.ten_seconds.kept(),
        )


def _present(record: TelemetryRecord) -> dict[str, int]:
    return {
        "memory_bytes": record.memory_bytes,
        "running": sum(lane.running for lane in record.lanes),
        "concurrency": sum(lane.concurrency for lane in record.lanes),
        "slots": record.slots,
        "workers": 1,
    }
