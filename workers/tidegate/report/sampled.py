"""What the telemetry of a job's time says about the worker processes: a sample, unlike the ledger's exact counts.

A record describes a task in a process, not a job: jobs of the same task that run at the same time share it. Times are the
server's, taken from the stream, so that they compare with the job's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from tidegate.model.stats import TIME_CLASSES, Distribution, distributions
from tidegate.telemetry.record import LaneDelta, TelemetryRecord

#: Points of a timeline or of one process's memory; a longer time gets coarser points.
MAX_POINTS = 240
#: Processes that are kept apart; records of more are added up in the totals only.
MAX_PROCESSES = 256


class TelemetrySource(Protocol):
    """What a report needs of the telemetry stream."""

    def between(self, start_ms: int, end_ms: int) -> Iterator[tuple[int, TelemetryRecord]]:
        """The records kept from that time of the server's clock, oldest first, each with its time in ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """One worker process over the job's time. ``average_running`` counts items of the job's task at once."""

    worker: str
    host: str = ""
    pid: int = 0
    slots: int = 0
    memory_bytes: int = 0
    memory_peak_bytes: int = 0
    memory_limit_bytes: int = 0
    pressure_soft: int = 0
    pressure_hard: int = 0
    interval_ns: int = 0
    idle_ns: int = 0
    cpu_ns: int = 0
    busy_ns: int = 0
    concurrency: int = 0
    peak_running: int = 0
    memory_points: tuple[tuple[int, int], ...] = ()

    @property
    def average_running(self) -> float:
        return self.busy_ns / self.interval_ns if self.interval_ns else 0.0

    @property
    def idle_share(self) -> float:
        """Share of its slots' time in which they held no batch, 0 to 1."""
        return min(1.0, self.idle_ns / (self.interval_ns * self.slots)) if self.interval_ns and self.slots else 0.0

    @property
    def memory_share(self) -> float:
        """Peak memory against the limit, 0 to 1; 0 when no limit is known."""
        return self.memory_peak_bytes / self.memory_limit_bytes if self.memory_limit_bytes else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One step of the timeline, ``width_ms`` long from ``at_ms``."""

    at_ms: int
    width_ms: int
    succeeded: int = 0
    unsuccessful: int = 0
    retried: int = 0
    busy_ns: int = 0
    class_ns: dict[str, int] = field(default_factory=dict)

    @property
    def average_running(self) -> float:
        return self.busy_ns / (self.width_ms * 1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledFacts:
    """``start_ms`` to ``end_ms``: the time that records cover. ``missing``: records lost from between others."""

    start_ms: int = 0
    end_ms: int = 0
    records: int = 0
    missing: int = 0
    processes: tuple[ProcessFacts, ...] = ()
    concurrency_peak: int = 0
    retried: int = 0
    retries_refused: int = 0
    commits: int = 0
    stale_commits: int = 0
    claims: int = 0
    empty_claims: int = 0
    redis_ns: int = 0
    times: dict[str, Distribution] = field(default_factory=dict)
    limit_weights: dict[str, int] = field(default_factory=dict)
    timeline: tuple[Point, ...] = ()

    @property
    def covered_s(self) -> float:
        """Seconds that records cover."""
        return max(0, self.end_ms - self.start_ms) / 1e3

    @property
    def slots(self) -> int:
        return sum(process.slots for process in self.processes)

    @property
    def slot_ns(self) -> int:
        """Time of all slots together."""
        return sum(process.interval_ns * process.slots for process in self.processes)

    @property
    def idle_ns(self) -> int:
        """Time in which slots held no batch."""
        return min(self.slot_ns, sum(process.idle_ns for process in self.processes))

    @property
    def idle_share(self) -> float:
        return self.idle_ns / self.slot_ns if self.slot_ns else 0.0

    @property
    def concurrency_configured(self) -> float:
        """Items of the task that the live processes may run at once, averaged over the covered time."""
        if not self.covered_s:
            return 0.0
        covered_ns = self.covered_s * 1e9  # a process's first record may begin a little before
        return sum(p.concurrency * min(1.0, p.interval_ns / covered_ns) for p in self.processes)

    @property
    def average_running(self) -> float:
        """Items of the task at once, over the covered time, all processes together."""
        busy_ns = sum(process.busy_ns for process in self.processes)
        return busy_ns / (self.covered_s * 1e9) if self.covered_s else 0.0


def sample(source: TelemetrySource | None, task: str, queue: str, start_ms: int, end_ms: int) -> SampledFacts:
    """The facts of the processes that ran ``task``, or could have because they serve ``queue``, in that time."""
    if source is None or end_ms <= start_ms:
        return SampledFacts()
    tally = _Tally(task, start_ms, end_ms)
    # A process writes its last second after the job's end; two seconds more catch it.
    for at_ms, record in source.between(start_ms, end_ms + 2000):
        lane = next((lane for lane in record.lanes if lane.task == task), None)
        if lane is not None or queue in record.queues:
            tally.add(at_ms, record, lane)
    return tally.facts()


class _Tally:
    """Adds records up. Bounded: the sum of what it keeps does not grow with the job's length."""

    def __init__(self, task: str, start_ms: int, end_ms: int) -> None:
        self._task = task
        self._start_ms = start_ms
        self._width_ms = max(1000, -(-(end_ms - start_ms) // MAX_POINTS))
        self._processes: dict[str, _Process] = {}
        self._points: dict[int, Counter[str]] = {}
        self._stats: Counter[str] = Counter()
        self._limits: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()
        self._first_ms = 0
        self._last_ms = 0

    def add(self, at_ms: int, record: TelemetryRecord, lane: LaneDelta | None) -> None:
        process = self._processes.get(record.worker)
        if process is None:
            if len(self._processes) >= MAX_PROCESSES:
                return
            process = self._processes[record.worker] = _Process()
        if not process.accepts(record):
            return
        step = max(0, at_ms - 1 - self._start_ms) // self._width_ms
        begun_ms = max(self._start_ms, at_ms - record.interval_ns // 1_000_000)
        self._first_ms = min(self._first_ms or begun_ms, begun_ms)
        self._last_ms = max(self._last_ms, at_ms)
        process.add(record, lane, step)
        self._sums.update(records=1, commits=record.commits, stale_commits=record.stale_commits, claims=record.claims)
        self._sums.update(empty_claims=record.empty_claims, redis_ns=record.redis_ns)
        if lane is not None:
            self._add_lane(lane, step)

    def _add_lane(self, lane: LaneDelta, step: int) -> None:
        self._stats.update(
            {key: value for key, value in lane.stats.items() if not key.endswith(("_min_ns", "_max_ns"))}
        )
        self._keep_extremes(lane.stats)
        self._limits.update(lane.limits)
        self._sums.update(retried=lane.retried, retries_refused=lane.retries_refused)
        point = self._points.setdefault(step, Counter())
        unsuccessful = lane.failed + lane.timed_out + lane.cancelled + lane.crashed
        point.update(succeeded=lane.succeeded, unsuccessful=unsuccessful, retried=lane.retried, busy_ns=lane.busy_ns)
        point.update({name: lane.stats.get(f"{name}_sum_ns", 0) for name in TIME_CLASSES})

    def _keep_extremes(self, stats: dict[str, int]) -> None:
        for name in TIME_CLASSES:
            if f"{name}_min_ns" in stats:
                key = f"{name}_min_ns"
                self._stats[key] = min(self._stats.get(key, stats[key]), stats[key])
            if f"{name}_max_ns" in stats:
                self._stats[f"{name}_max_ns"] = max(self._stats[f"{name}_max_ns"], stats[f"{name}_max_ns"])

    def facts(self) -> SampledFacts:
        processes = self._processes.values()
        running: Counter[int] = Counter()
        for process in processes:
            running.update(process.running_at)
        return SampledFacts(
            start_ms=self._first_ms,
            end_ms=self._last_ms,
            records=self._sums["records"],
            missing=sum(process.missing for process in processes),
            processes=tuple(
                self._process_facts(worker, process) for worker, process in sorted(self._processes.items())
            ),
            concurrency_peak=max(running.values(), default=0),
            times=distributions(self._stats),
            limit_weights={name: weight for name, weight in self._limits.most_common(32) if weight > 0},
            timeline=tuple(self._point(step) for step in sorted(self._points)),
            **{name: self._sums[name] for name in _SUMS},
        )

    def _point(self, step: int) -> Point:
        sums = self._points[step]
        return Point(
            at_ms=self._start_ms + step * self._width_ms,
            width_ms=self._width_ms,
            succeeded=sums["succeeded"],
            unsuccessful=sums["unsuccessful"],
            retried=sums["retried"],
            busy_ns=sums["busy_ns"],
            class_ns={name: sums[name] for name in TIME_CLASSES},
        )

    def _process_facts(self, worker: str, process: _Process) -> ProcessFacts:
        last = process.last
        assert last is not None
        return ProcessFacts(
            worker=worker,
            host=last.host,
            pid=last.pid,
            slots=last.slots,
            memory_bytes=last.memory_bytes,
            memory_peak_bytes=process.memory_peak_bytes,
            memory_limit_bytes=last.memory_limit_bytes,
            concurrency=process.concurrency,
            peak_running=max(process.running_at.values(), default=0),
            memory_points=tuple(
                (self._start_ms + step * self._width_ms, value) for step, value in sorted(process.memory_at.items())
            ),
            **{name: process.sums[name] for name in _PROCESS_SUMS},
        )


_SUMS = ("retried", "retries_refused", "commits", "stale_commits", "claims", "empty_claims", "redis_ns")
_PROCESS_SUMS = ("interval_ns", "idle_ns", "cpu_ns", "busy_ns", "pressure_soft", "pressure_hard")


class _Process:
    """One process's sums, and its highest values by step of the timeline."""

    def __init__(self) -> None:
        self.last: TelemetryRecord | None = None
        self.missing = 0
        self.concurrency = 0
        self.memory_peak_bytes = 0
        self.sums: Counter[str] = Counter()
        self.memory_at: dict[int, int] = {}
        self.running_at: dict[int, int] = {}

    def accepts(self, record: TelemetryRecord) -> bool:
        """Whether the record is new; a record sent twice is not."""
        if self.last is None:
            return True
        if record.sequence <= self.last.sequence:
            return False
        self.missing += record.sequence - self.last.sequence - 1
        return True

    def add(self, record: TelemetryRecord, lane: LaneDelta | None, step: int) -> None:
        self.last = record
        self.memory_peak_bytes = max(self.memory_peak_bytes, record.memory_peak_bytes, record.memory_bytes)
        self.memory_at[step] = max(self.memory_at.get(step, 0), record.memory_bytes)
        self.sums.update({name: getattr(record, name) for name in _PROCESS_SUMS if name != "busy_ns"})
        if lane is not None:
            self.sums["busy_ns"] += lane.busy_ns
            self.concurrency = max(self.concurrency, lane.concurrency)
            self.running_at[step] = max(self.running_at.get(step, 0), lane.running, lane.peak_running)


def records_of(source: Iterable[tuple[int, TelemetryRecord]]) -> TelemetrySource:
    """A source over records already at hand, for example from a file.

    >>> list(records_of([(5, TelemetryRecord(worker="w", sequence=1))]).between(0, 4))
    []
    """
    return _Kept(tuple(source))


@dataclass(frozen=True, slots=True)
class _Kept:
    kept: tuple[tuple[int, TelemetryRecord], ...]

    def between(self, start_ms: int, end_ms: int) -> Iterator[tuple[int, TelemetryRecord]]:
        return (pair for pair in self.kept if start_ms <= pair[0] <= end_ms)
