"""Memory guard: above a soft mark a process claims nothing and collects garbage; above a hard one it is replaced."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tidegate.worker.gate import Gate

log = logging.getLogger(__name__)

#: Claiming goes on once memory is this share of the limit below the soft mark.
_SLACK = 0.05
#: A process that stays above the soft mark for so long with nothing at work cannot help itself, and is replaced.
_PATIENCE_S = 10.0
_COLLECT_EVERY_S = 5.0
_CGROUP = Path("/sys/fs/cgroup")


class MemoryGuard:
    """Checked by the pulse. ``limit``: bytes of this process; ``replace``: called once, when it has to go."""

    def __init__(
        self,
        *,
        gate: Gate,
        limit: int,
        soft: float,
        hard: float,
        busy: Callable[[], bool],
        replace: Callable[[str], None],
        used: Callable[[], int] | None = None,
    ) -> None:
        self._gate = gate
        self.limit = limit
        self._soft = round(limit * soft)
        self._open = round(limit * max(0.0, soft - _SLACK))
        self._hard = round(limit * hard)
        self._busy = busy
        self._replace: Callable[[str], None] | None = replace
        process = psutil.Process()
        self._used = used or (lambda: int(process.memory_info().rss))
        self._held_since = 0.0
        self._idle_since = 0.0
        self._collected = 0.0
        self.bytes = 0
        self.peak = 0
        self.soft_crossings = 0
        self.hard_crossings = 0

    def check(self) -> None:
        """Look once."""
        self.bytes = self._used()
        self.peak = max(self.peak, self.bytes)
        if self._replace is not None and self.bytes >= self._hard:
            self.hard_crossings += 1
            self._go("memory above the hard mark")
        elif self.bytes >= self._soft:
            self._press()
        elif self._held_since and self.bytes < self._open:
            log.warning("memory below the soft mark again bytes=%d limit=%d", self.bytes, self.limit)
            self._held_since = 0.0
            self._gate.hold(False)

    def _press(self) -> None:
        now = time.monotonic()
        if not self._held_since:
            self._held_since = self._idle_since = now
            self.soft_crossings += 1
            log.warning("memory above the soft mark, claiming nothing bytes=%d limit=%d", self.bytes, self.limit)
            self._gate.hold(True)
        if now - self._collected >= _COLLECT_EVERY_S:
            self._collected = now
            gc.collect()
        if self._busy():
            self._idle_since = now
        elif now - self._idle_since >= _PATIENCE_S:
            self._go("memory stays above the soft mark with nothing at work")

    def _go(self, reason: str) -> None:
        replace, self._replace = self._replace, None
        if replace is not None:
            log.warning("%s, process is replaced bytes=%d limit=%d", reason, self.bytes, self.limit)
            self._gate.hold(True)
            replace(reason)


def memory_limit(configured: int | None, processes: int) -> int:
    """Bytes that this process may use: as configured, or its share of what the cgroup or the machine has."""
    if configured:
        return configured
    return max(64 << 20, min(_cgroup_limit(), int(psutil.virtual_memory().total)) // max(1, processes))


def _cgroup_limit() -> int:
    """The nearest memory limit of this process's control group; very large when there is none."""
    limits = [_number(path) for path in _cgroup_files()]
    return min((limit for limit in limits if limit > 0), default=1 << 62)


def _cgroup_files() -> list[Path]:
    files = [_CGROUP / "memory.max", _CGROUP / "memory" / "memory.limit_in_bytes"]
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return files
    for line in lines:
        _, controllers, path = line.split(":", 2)
        parts = [part for part in path.split("/") if part and part != ".."]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if not controllers:
                files.append(_CGROUP / folder / "memory.max")
            elif "memory" in controllers.split(","):
                files.append(_CGROUP / "memory" / folder / "memory.limit_in_bytes")
    return files


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return 0
