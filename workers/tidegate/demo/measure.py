"""What ``tidegate bench`` measures: no-op items from ``map`` to their stored results, on this machine."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from tidegate.demo import noop
from tidegate.demo.interrupts import Interrupts
from tidegate.demo.stack import Stack
from tidegate.errors import TidegateError

_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Run:
    """One job. Rates are items a second; CPU is microseconds an item."""

    enqueue_rate: float
    rate: float
    worker_cpu_us: float


def measure(items: int, batch_size: int, runs: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Medians and all runs, with a private server and one worker process that are gone afterwards.

    ``rate`` counts from the call of ``map`` to the last stored result, while the producer works on the same machine.
    ``KeyboardInterrupt`` after Ctrl-C, with everything stopped as well.
    """
    with Interrupts() as interrupts, Stack(interrupts, f"{noop.__name__}:gate", processes=1, collector=False) as stack:
        gate = noop.build(stack.url)
        try:
            task = gate.find_task(f"{noop.__name__}.noop")
            task.map(range(10 * batch_size), batch_size=batch_size).wait(
                timeout=_TIMEOUT_S
            )  # modules, connections, scripts
            found = []
            for number in range(runs):
                tell(f"run {number + 1} of {runs}")
                cpu_s, start = stack.worker_cpu_s(), time.perf_counter()
                job = task.map(range(items), batch_size=batch_size)
                enqueued = time.perf_counter()
                stands = job.wait(timeout=_TIMEOUT_S)
                ended = time.perf_counter()
                if stands.done != items:
                    raise TidegateError(f"{stands.done:,} of {items:,} items ended", remedy="look at the worker's log")
                cpu_us = (stack.worker_cpu_s() - cpu_s) / items * 1e6
                found.append(Run(items / (enqueued - start), items / (ended - start), cpu_us))
        finally:
            gate.close()
    return {
        "items": items,
        "batch_size": batch_size,
        "medians": {name: statistics.median(asdict(run)[name] for run in found) for name in asdict(found[0])},
        "runs": [asdict(run) for run in found],
        "machine": {
            "system": platform.platform(),
            "cores": psutil.cpu_count(),
            "python": platform.python_version(),
            "load": psutil.getloadavg()[0],
        },
    }
