"""Memory pressure: how much memory this process may use, how much it does, and what to do above the mark."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path

_V2 = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60


def cgroup_limit_bytes(root: Path = _V2, process: Path = Path("/proc/self/cgroup")) -> int | None:
    """The memory limit of this process's cgroup, version 2 or 1; the lowest one on the way up. ``None``: no limit."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return None
    limits: list[int] = []
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, path = parts
        if controllers == "":
            limits += _limits_up(root, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits_up(root / "memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits_up(root: Path, path: str, name: str) -> list[int]:
    """Every limit between a cgroup and the root. In a container the path is the host's and only the root exists."""
    found: list[int] = []
    place = root / path.lstrip("/")
    while True:
        try:
            text = (place / name).read_text().strip()
            if text.isdigit() and int(text) < _UNLIMITED:
                found.append(int(text))
        except OSError:
            pass
        if place in (root, place.parent):
            return found
        place = place.parent


def memory_limit_bytes() -> int:
    """What this process may use: the cgroup's limit, or the machine's memory."""
    import psutil

    machine = int(psutil.virtual_memory().total)
    return min(cgroup_limit_bytes() or machine, machine)


def memory_bytes() -> int:
    """Resident memory of this process."""
    import psutil

    return int(psutil.Process().memory_info().rss)


class MemoryGuard:
    """Collects garbage and pauses above ``mark_bytes``. Called now and then by whoever waits; needs no thread.

    A pause lasts until memory falls below the mark, at most ``pause_s``: then work goes on for as long again, because
    pausing for ever would free nothing. ``measure`` and ``now_s`` are for tests.
    """

    def __init__(
        self,
        mark_bytes: int,
        pause: Callable[[], None],
        resume: Callable[[], None],
        *,
        every_s: float = 0.1,
        pause_s: float = 0.5,
        measure: Callable[[], int] = memory_bytes,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mark_bytes = mark_bytes
        self.peak_bytes = 0
        self.collections = 0
        self.pauses = 0
        self._pause = pause
        self._resume = resume
        self._every_s = every_s
        self._pause_s = pause_s
        self._measure = measure
        self._now_s = now_s
        self._next_s = 0.0
        self._paused_until_s: float | None = None
        self._calm_until_s = 0.0

    @property
    def paused(self) -> bool:
        """Whether work is held back now."""
        return self._paused_until_s is not None

    def check(self) -> None:
        """Measure, if the last time was long enough ago, and act."""
        now = self._now_s()
        if now < self._next_s:
            return
        self._next_s = now + self._every_s
        used = self._measure()
        self.peak_bytes = max(self.peak_bytes, used)
        if self._paused_until_s is not None:
            if used < self.mark_bytes or now >= self._paused_until_s:
                self.release()
                self._calm_until_s = now + self._pause_s
            return
        if used < self.mark_bytes or now < self._calm_until_s:
            return
        gc.collect()
        self.collections += 1
        if self._measure() >= self.mark_bytes:
            self.pauses += 1
            self._paused_until_s = now + self._pause_s
            self._pause()

    def release(self) -> None:
        """End a pause."""
        if self._paused_until_s is not None:
            self._paused_until_s = None
            self._resume()
