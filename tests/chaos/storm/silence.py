"""Silence: how long nothing ran although there was work, and how much processor time idle workers use."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

from storm.tree import WorkerTree

#: Work that stands still for longer than this, while a server answers, is a stall that nobody noticed.
STALL_S = 5.0
#: An idle worker process may use this share of a processor.
IDLE_SHARE = 0.05


def longest_silence_s(path: Path, job_id: str) -> float:
    """The longest time between two executions of a job that follow each other."""
    prefix = job_id.encode() + b" "
    with path.open("rb") as file:
        times = sorted(int(row.split()[4]) for row in file if row.startswith(prefix) and row.endswith(b"\n"))
    return max((after - before for before, after in itertools.pairwise(times)), default=0) / 1e9


def idle_share(tree: WorkerTree, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> float:
    """Processor time of a worker process over ``seconds``, as a share of one processor; the busiest one's.

    ``meanwhile`` is called every 200 ms.
    """
    before = _cpu_s(tree)
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(0.2)
        meanwhile()
    took_s = time.monotonic() - began
    after = _cpu_s(tree)
    return max(((used - before[pid]) / took_s for pid, used in after.items() if pid in before), default=1.0)


def _cpu_s(tree: WorkerTree) -> dict[int, float]:
    return {child.pid: sum(child.cpu_times()[:2]) for child in tree.children()}
