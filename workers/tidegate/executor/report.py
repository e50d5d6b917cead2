"""The executor's report: what was done, how long it took, what went wrong, and what to change."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

from tidegate.executor.forks import renew_lock_in_children
from tidegate.executor.memory import MemoryGuard
from tidegate.model.policy import TaskPolicy
from tidegate.model.stats import Distribution, distributions
from tidegate.telemetry.record import LaneDelta

ENDS = ("succeeded", "failed", "timed_out", "cancelled", "crashed")
#: Error types told apart; the rest is counted together.
MAX_ERROR_TYPES = 64
#: Intervals kept of the recent past, so that the report of an executor that runs for months stays small.
WINDOW = 120
WINDOW_S = 1.0

SLOW_RUN_S = 5.0
HIGH_FAILURE_SHARE = 0.10
LOW_CONCURRENCY_SHARE = 0.5
MEMORY_NEAR_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Finding:
    """One line that names a cause, the evidence, and what to change."""

    code: str
    severity: str
    message: str
    advice: str


@dataclass(frozen=True, slots=True)
class ExecutorReport:
    """Facts since the executor was made. Times in seconds; ``print()`` it for people, ``to_dict()`` for programs."""

    items: int
    outcomes: dict[str, int]
    executions: int
    retries: int
    retries_refused: int
    active_s: float
    items_per_s: float
    concurrency: int
    average_concurrency: float
    peak_concurrency: int
    run_s: dict[str, float]
    waited_s: dict[str, float]
    errors: dict[str, float]
    memory_peak_bytes: int
    memory_mark_bytes: int
    memory_collections: int
    memory_pauses: int
    recent_items_per_s: tuple[float, ...]
    pool: dict[str, int]
    findings: tuple[Finding, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        text = StringIO()
        Console(file=text, width=100, highlight=False, color_system=None).print(self)
        return text.getvalue().rstrip("\n")

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        facts = Table.grid(padding=(0, 2))
        for name, value in self._rows():
            facts.add_row(Text(name, style="bold"), value)
        parts: list[Any] = [facts]
        if self.findings:
            parts.append(Text("\nFindings", style="bold"))
            parts += [Text(f"  {one.severity}: {one.message}\n    → {one.advice}") for one in self.findings]
        return Group(*parts)

    def _rows(self) -> list[tuple[str, str]]:
        share = self.outcomes.get("succeeded", 0) / self.items if self.items else 1.0
        ends = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in self.outcomes.items() if count)
        rows = [
            ("items", f"{self.items:,} ({ends})" if ends else "0"),
            ("success", f"{share:.2%}"),
            ("executions", f"{self.executions:,}, of them {self.retries:,} retries"),
            ("throughput", f"{self.items_per_s:,.0f} items/s over {self.active_s:.3f} s of work"),
            (
                "concurrency",
                f"average {self.average_concurrency:.1f}, peak {self.peak_concurrency}, limit {self.concurrency}",
            ),
            ("run time", _times(self.run_s)),
            ("waited", ", ".join(f"{name} {seconds:.3f} s" for name, seconds in self.waited_s.items())),
            (
                "memory",
                f"peak {self.memory_peak_bytes / 1e6:,.0f} MB of {self.memory_mark_bytes / 1e6:,.0f} MB,"
                f" {self.memory_collections} collections, {self.memory_pauses} pauses",
            ),
        ]
        rows += [("error", f"{share:.1%} {name}") for name, share in list(self.errors.items())[:8]]
        return rows


def _times(run_s: dict[str, float]) -> str:
    return ", ".join(f"{name} {_duration(value)}" for name, value in run_s.items())


def _duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


class Totals:
    """Adds up deltas of lanes, and the time in which there was work. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        renew_lock_in_children(self)
        self._counts: Counter[str] = Counter()
        self._stats: dict[str, int] = {}
        self._errors: Counter[str] = Counter()
        self._busy_ns = 0
        self._peak = 0
        self._active = 0
        self._active_since = 0.0
        self._active_s = 0.0
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._window_at = time.monotonic()
        self._window_items = 0

    def begin(self) -> None:
        """A run starts."""
        with self._lock:
            if self._active == 0:
                self._active_since = time.monotonic()
            self._active += 1

    def end(self) -> None:
        """A run ended."""
        with self._lock:
            self._active -= 1
            if self._active == 0:
                self._active_s += time.monotonic() - self._active_since

    def ended(self, _run: object) -> None:
        """As :meth:`end`, as a callback of a run."""
        self.end()

    def add(self, delta: LaneDelta) -> None:
        """What a lane did since the last time."""
        with self._lock:
            for name in (*ENDS, "started", "retried", "retries_refused"):
                self._counts[name] += getattr(delta, name)
            self._busy_ns += delta.busy_ns
            self._peak = max(self._peak, delta.peak_running)
            for name, count in delta.errors.items():
                known = name in self._errors or len(self._errors) < MAX_ERROR_TYPES
                self._errors[name if known else "(other)"] += count
            _merge(self._stats, delta.stats)
            self._note_window(sum(getattr(delta, name) for name in ENDS))

    def _note_window(self, items: int) -> None:
        self._window_items += items
        now = time.monotonic()
        elapsed = now - self._window_at
        if elapsed >= WINDOW_S:
            self._window.append(self._window_items / elapsed)
            self._window_at, self._window_items = now, 0

    def report(self, policy: TaskPolicy, memory: MemoryGuard, pool: dict[str, int]) -> ExecutorReport:
        """The report of everything added so far."""
        with self._lock:
            active_s = self._active_s + (time.monotonic() - self._active_since if self._active else 0.0)
            classes = distributions(self._stats)
            outcomes = {name: self._counts[name] for name in ENDS}
            items = sum(outcomes.values())
            failures = sum(self._errors.values())
            facts: dict[str, Any] = {
                "items": items,
                "outcomes": outcomes,
                "executions": self._counts["started"],
                "retries": self._counts["retried"],
                "retries_refused": self._counts["retries_refused"],
                "active_s": active_s,
                "items_per_s": items / active_s if active_s else 0.0,
                "concurrency": policy.concurrency,
                "average_concurrency": self._busy_ns / 1e9 / active_s if active_s else 0.0,
                "peak_concurrency": self._peak,
                "run_s": _summary(classes["running"]),
                "waited_s": {
                    "in line": classes["queued"].sum_ns / 1e9,
                    "for limits": classes["limited"].sum_ns / 1e9,
                    "between attempts": classes["backoff"].sum_ns / 1e9,
                },
                "errors": {name: count / failures for name, count in self._errors.most_common()},
                "memory_peak_bytes": memory.peak_bytes,
                "memory_mark_bytes": memory.mark_bytes,
                "memory_collections": memory.collections,
                "memory_pauses": memory.pauses,
                "recent_items_per_s": tuple(self._window),
                "pool": pool,
            }
            facts["findings"] = tuple(_findings(facts, classes))
        return ExecutorReport(**facts)


def _merge(total: dict[str, int], more: dict[str, int]) -> None:
    for key, value in more.items():
        if key.endswith("_min_ns"):
            total[key] = min(total.get(key, value), value)
        elif key.endswith("_max_ns"):
            total[key] = max(total.get(key, value), value)
        else:
            total[key] = total.get(key, 0) + value


def _summary(running: Distribution) -> dict[str, float]:
    return {
        "mean": running.mean_ns / 1e9,
        "p50": running.quantile_ns(0.50) / 1e9,
        "p95": running.quantile_ns(0.95) / 1e9,
        "p99": running.quantile_ns(0.99) / 1e9,
        "max": running.max_ns / 1e9,
    }


def _findings(facts: dict[str, Any], classes: dict[str, Distribution]) -> list[Finding]:
    """What stands out, worst first."""
    found: list[Finding] = []
    items = facts["items"]
    failed = items - facts["outcomes"]["succeeded"] - facts["outcomes"]["cancelled"]
    if items and failed / items > HIGH_FAILURE_SHARE:
        worst = next(iter(facts["errors"]), "")
        found.append(
            Finding(
                "many-failures",
                "error",
                f"{failed / items:.1%} of the items failed, most of them with {worst or 'no error recorded'}",
                "look at the traces of the failures first; retry only errors that pass (Retry(on=...))",
            )
        )
    if facts["memory_pauses"] or facts["memory_peak_bytes"] > MEMORY_NEAR_SHARE * facts["memory_mark_bytes"]:
        found.append(
            Finding(
                "memory-near-mark",
                "warning",
                f"memory reached {facts['memory_peak_bytes'] / 1e6:,.0f} MB of a mark of "
                f"{facts['memory_mark_bytes'] / 1e6:,.0f} MB, {facts['memory_pauses']} pauses",
                "use stream() with a lower high_water, smaller items, or a higher memory_limit",
            )
        )
    if facts["run_s"]["mean"] > SLOW_RUN_S:
        found.append(
            Finding(
                "slow-items",
                "warning",
                f"an item runs for {facts['run_s']['mean']:.1f} s on average",
                "split items into smaller ones, set a timeout, or raise concurrency if they wait for something",
            )
        )
    limited, running = classes["limited"].sum_ns, classes["running"].sum_ns
    if limited > running > 0:
        found.append(
            Finding(
                "limited",
                "info",
                f"items waited {limited / 1e9:.1f} s for limits and ran for {running / 1e9:.1f} s",
                "the limit decides the throughput: raise it if the other side allows, or do less per item",
            )
        )
    elif facts["active_s"] > 0.5 and facts["average_concurrency"] < LOW_CONCURRENCY_SHARE * facts["concurrency"]:
        found.append(
            Finding(
                "idle-concurrency",
                "info",
                f"{facts['average_concurrency']:.1f} items ran at once on average, of {facts['concurrency']} allowed",
                "hand over more items at once, or lower concurrency: more of it would change nothing",
            )
        )
    return found
