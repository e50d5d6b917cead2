"""TelemetryPublisher: once a second, what this process has done since the last record, into the telemetry stream."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from tidegate.clock import Clock, SystemClock
from tidegate.telemetry.record import LaneDelta, TelemetryRecord
from tidegate.worker.memory import MemoryGuard
from tidegate.worker.slots import Slots, SlotTotals
from tidegate.worker.work import WorkLane

if TYPE_CHECKING:
    from tidegate.telemetry.stream import TelemetryWriter

log = logging.getLogger(__name__)

#: Records kept while the server is away: a minute of them.
_MOST_WAITING = 60


class TelemetryPublisher:
    """``snapshot`` gives the executor's lane deltas; they are asked for exactly once, so nothing is counted twice."""

    def __init__(
        self,
        *,
        writer: TelemetryWriter,
        worker: str,
        queues: Iterable[str],
        slots: Slots,
        lanes: Mapping[str, WorkLane],
        memory: MemoryGuard,
        snapshot: Callable[[], list[LaneDelta]],
        refused: Callable[[], int] = lambda: 0,
        clock: Clock | None = None,
    ) -> None:
        self._writer = writer
        self._worker = worker
        self._queues = tuple(sorted(queues))
        self._slots = slots
        self._lanes = lanes
        self._memory = memory
        self._snapshot = snapshot
        self._refused = refused
        self._last_refused = 0
        self._clock = clock or SystemClock()
        self._host = socket.gethostname()
        self._sequence = 0
        self._waiting: deque[TelemetryRecord] = deque(maxlen=_MOST_WAITING)
        self._last_ns = time.monotonic_ns()
        self._last_cpu_ns = time.process_time_ns()
        self._last = slots.totals(self._last_ns)
        self._last_soft = self._last_hard = 0
        self._lock = threading.Lock()
        self._warned = self._stopped = False

    def publish(self, *, stopping: bool = False) -> None:
        """Add a record and send what waits; when the server is away, records wait for the next time. None follows the last."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = stopping
            self._waiting.append(self._record(stopping))
            try:
                while self._waiting:
                    self._writer.write(self._waiting[0])
                    self._waiting.popleft()
                self._warned = False
            except Exception as error:  # noqa: BLE001 - telemetry never disturbs work, whatever goes wrong
                if not self._warned:
                    self._warned = True
                    log.warning("telemetry not sent, kept for later reason=%s", error)

    def _record(self, stopping: bool) -> TelemetryRecord:
        now_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
        totals, last = self._slots.totals(now_ns), self._last
        interval = now_ns - self._last_ns
        count = len(self._slots.all)
        busy = min(max(0, totals.busy_ns - last.busy_ns), interval * count)
        self._sequence += 1
        refused = self._refused()
        record = TelemetryRecord(
            worker=self._worker,
            sequence=self._sequence,
            host=self._host,
            pid=os.getpid(),
            queues=self._queues,
            wall_ms=self._clock.wall_ms(),
            interval_ns=interval,
            slots=count,
            idle_ns=interval * count - busy,
            claims=totals.claims - last.claims,
            empty_claims=totals.empty_claims - last.empty_claims,
            commits=totals.commits - last.commits,
            stale_commits=totals.stale_commits - last.stale_commits,
            refused=refused - self._last_refused,
            redis_ns=totals.redis_ns - last.redis_ns,
            cpu_ns=cpu_ns - self._last_cpu_ns,
            memory_bytes=self._memory.bytes,
            memory_peak_bytes=self._memory.peak,
            memory_limit_bytes=self._memory.limit,
            pressure_soft=self._memory.soft_crossings - self._last_soft,
            pressure_hard=self._memory.hard_crossings - self._last_hard,
            started=self._sequence == 1,
            stopping=stopping,
            lanes=self._lane_deltas(),
        )
        self._last_refused = refused
        self._remember(now_ns, cpu_ns, totals)
        return record

    def _remember(self, now_ns: int, cpu_ns: int, totals: SlotTotals) -> None:
        self._last_ns, self._last_cpu_ns, self._last = now_ns, cpu_ns, totals
        self._last_soft, self._last_hard = self._memory.soft_crossings, self._memory.hard_crossings

    def _lane_deltas(self) -> tuple[LaneDelta, ...]:
        deltas = []
        for delta in self._snapshot():
            lane = self._lanes.get(delta.task)
            if lane is None:
                deltas.append(delta)
                continue
            errors, crashed = lane.taken()
            deltas.append(
                msgspec.structs.replace(delta, errors=errors, crashed=delta.crashed + crashed, limits=lane.demand())
            )
        return tuple(deltas)
