"""Metrics: what the collector knows, as Prometheus reads it. Base units; every label is bounded in number and length.

Histogram bounds are the usual decimal ones; the telemetry's own buckets are finer, so that a measurement near a bound is
put on its side to within 3.2 %.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from tidegate.collector.aggregate import Aggregate
from tidegate.collector.jobs import JobsView
from tidegate.collector.state import TaskTotals
from tidegate.model.outcome import Outcome
from tidegate.model.stats import TIME_CLASSES, coarse_bounds_ns
from tidegate.telemetry.record import TelemetryRecord

BOUNDS_S = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

_TASK_COUNTERS = {
    "started": ("tidegate_attempts_started", "Attempts that began", 1.0),
    "retried": ("tidegate_retries", "Attempts that failed and were to be repeated", 1.0),
    "retries_refused": ("tidegate_retries_refused", "Failed attempts that the policy did not repeat", 1.0),
    "busy_ns": ("tidegate_busy_seconds", "Time in which items ran, added up over items", 1e-9),
}
_SUMS = {
    "claims": ("tidegate_claims", "Claims of a batch", 1.0),
    "empty_claims": ("tidegate_claims_empty", "Claims that found no batch", 1.0),
    "commits": ("tidegate_commits", "Commits of batches or parts of them", 1.0),
    "stale_commits": ("tidegate_commits_stale", "Commits refused because the lease was lost", 1.0),
    "redis_ns": ("tidegate_ledger_seconds", "Time that workers spent in calls to the ledger", 1e-9),
    "cpu_ns": ("tidegate_worker_cpu_seconds", "CPU time of worker processes", 1e-9),
    "idle_ns": ("tidegate_slot_idle_seconds", "Time in which slots held no batch, added up over slots", 1e-9),
    "slot_ns": ("tidegate_slot_seconds", "Time of all slots", 1e-9),
    "records": ("tidegate_collector_records", "Telemetry records added", 1.0),
    "duplicates": ("tidegate_collector_duplicates", "Telemetry records that came again and were not added", 1.0),
    "missing": ("tidegate_collector_missing", "Telemetry records that never came", 1.0),
    "malformed": ("tidegate_collector_malformed", "Stream entries that are not telemetry records", 1.0),
}


class Metrics:
    """A custom collector for ``prometheus_client``: makes every family anew at each scrape."""

    def __init__(self, aggregate: Aggregate, jobs: JobsView) -> None:
        self._aggregate = aggregate
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        """All families; called by the registry."""
        with self._aggregate.lock:
            families = [*self._tasks(), *self._sums(), *self._workers()]
        yield from families
        yield from self._ledger()

    def _tasks(self) -> Iterator[Metric]:
        tasks = self._aggregate.tasks
        items = CounterMetricFamily(
            "tidegate_items", "Items that workers settled, by outcome", labels=["task", "outcome"]
        )
        for task, totals in tasks.items():
            for outcome in Outcome:
                items.add_metric([task, str(outcome)], totals.counts.get(str(outcome), 0))
        yield items
        for field, (name, text, factor) in _TASK_COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=["task"])
            for task, totals in tasks.items():
                family.add_metric([task], totals.counts.get(field, 0) * factor)
            yield family
        yield from _histograms(tasks)
        errors = CounterMetricFamily("tidegate_errors", "Failed items by error type", labels=["type"])
        for kind, count in self._aggregate.errors.items():
            errors.add_metric([kind], count)
        yield errors

    def _sums(self) -> Iterator[Metric]:
        for field, (name, text, factor) in _SUMS.items():
            yield CounterMetricFamily(name, text, value=self._aggregate.sums[field] * factor)
        pressure = CounterMetricFamily("tidegate_memory_pressure", "Crossings of a memory mark", labels=["mark"])
        for mark in ("soft", "hard"):
            pressure.add_metric([mark], self._aggregate.sums[f"pressure_{mark}"])
        yield pressure

    def _workers(self) -> Iterator[Metric]:
        now = self._aggregate.now()
        yield GaugeMetricFamily("tidegate_workers", "Live worker processes", value=now["workers"])
        yield GaugeMetricFamily("tidegate_slots", "Slots of live worker processes", value=now["slots"])
        records = [record for _, record in self._aggregate.workers.values()]
        yield from _memory(records)
        yield from _lanes(records)
        waiting = GaugeMetricFamily("tidegate_limit_waiting", "Items that wait for a limit now", labels=["limit"])
        for limit, count in self._aggregate.waiting_for_limits().items():
            waiting.add_metric([limit], count)
        yield waiting

    def _ledger(self) -> Iterator[Metric]:
        snapshot = self._jobs.snapshot()
        states = GaugeMetricFamily("tidegate_jobs", "The newest jobs by state (paused ones twice)", labels=["state"])
        for state, count in snapshot.by_state().items():
            states.add_metric([state], count)
        yield states
        yield GaugeMetricFamily("tidegate_ready_batches", "Batches ready to be claimed", value=snapshot.ready_batches)
        yield GaugeMetricFamily(
            "tidegate_ready_batch_age_seconds",
            "Wait so far of the oldest ready batch",
            value=snapshot.oldest_ready_ms / 1e3,
        )
        yield GaugeMetricFamily(
            "tidegate_pending_items", "Items of jobs without an outcome yet", value=snapshot.pending_items
        )
        yield GaugeMetricFamily(
            "tidegate_pending_bytes", "Payloads of jobs in the ledger", value=snapshot.pending_bytes
        )


def _memory(records: list[TelemetryRecord]) -> Iterator[Metric]:
    families = {
        "memory_bytes": GaugeMetricFamily(
            "tidegate_worker_memory_bytes", "Resident memory of a worker process", labels=["worker", "host"]
        ),
        "memory_peak_bytes": GaugeMetricFamily(
            "tidegate_worker_memory_peak_bytes",
            "Highest resident memory of a worker process",
            labels=["worker", "host"],
        ),
        "memory_limit_bytes": GaugeMetricFamily(
            "tidegate_worker_memory_limit_bytes", "Memory limit of a worker process", labels=["worker", "host"]
        ),
    }
    for record in records:
        for field, family in families.items():
            family.add_metric([record.worker[:100], record.host[:100]], getattr(record, field))
    yield from families.values()


def _lanes(records: list[TelemetryRecord]) -> Iterator[Metric]:
    running = GaugeMetricFamily("tidegate_running", "Items that run now", labels=["task"])
    concurrency = GaugeMetricFamily("tidegate_concurrency", "Items that may run at once", labels=["task"])
    waiting = GaugeMetricFamily("tidegate_waiting", "Items that wait inside workers now", labels=["task", "class"])
    sums: dict[str, list[int]] = {}
    for record in records:
        for lane in record.lanes:
            task = lane.task[:200]
            if task not in sums and len(sums) >= 200:
                task = "_other"
            row = sums.setdefault(task, [0, 0, 0, 0, 0])
            here = (lane.running, lane.concurrency, lane.waiting_queued, lane.waiting_limited, lane.waiting_backoff)
            sums[task] = [a + b for a, b in zip(row, here, strict=True)]
    for task, (now, allowed, queued, limited, backoff) in sums.items():
        running.add_metric([task], now)
        concurrency.add_metric([task], allowed)
        for name, count in (("queued", queued), ("limited", limited), ("backoff", backoff)):
            waiting.add_metric([task, name], count)
    yield from (running, concurrency, waiting)


def _histograms(tasks: dict[str, TaskTotals]) -> Iterator[Metric]:
    run = HistogramMetricFamily("tidegate_run_seconds", "Run time of an attempt", labels=["task"])
    wait = HistogramMetricFamily("tidegate_wait_seconds", "Waiting of an item by class", labels=["task", "class"])
    for task, totals in tasks.items():
        for name in TIME_CLASSES:
            buckets, total_s = _cumulative(totals.stats, name)
            if name == "running":
                run.add_metric([task], buckets, total_s)
            elif buckets[-1][1]:
                wait.add_metric([task, name], buckets, total_s)
    yield from (run, wait)


def _cumulative(stats: dict[str, int], name: str) -> tuple[list[tuple[str, float]], float]:
    counts = [0] * (len(BOUNDS_S) + 1)
    prefix = f"{name}:"
    for key, count in stats.items():
        if key.startswith(prefix) and key[len(prefix) :].isdecimal():
            low, high = coarse_bounds_ns(min(int(key[len(prefix) :]), 1_000))
            counts[bisect_left(BOUNDS_S, (low + high - 1) / 2e9)] += count
    total = 0
    cumulative: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), counts, strict=True):
        total += count
        cumulative.append((bound, total))
    return cumulative, stats.get(f"{name}_sum_ns", 0) / 1e9
