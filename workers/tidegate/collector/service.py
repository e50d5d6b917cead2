"""Collector: follows the telemetry stream and looks at the jobs, in two threads of its own; the web part only reads it.

It starts from the checkpoint and adds what came since, so a restart loses nothing and adds nothing twice, as long as the
stream still holds what it missed. What it could not reach is retried; the last trouble is kept for ``/healthz``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol, Self

from tidegate.collector.aggregate import Aggregate
from tidegate.collector.jobs import JobsView
from tidegate.collector.metrics import Metrics
from tidegate.collector.state import State, decode_state, encode_state
from tidegate.errors import LedgerError
from tidegate.ledger.port import Ledger
from tidegate.telemetry.record import TelemetryRecord

log = logging.getLogger("tidegate.collector")

_READ_COUNT = 1_000
_READ_BLOCK_MS = 500
_LONGEST_PAUSE_S = 5.0


class Source(Protocol):
    """What a collector needs of the telemetry stream."""

    @property
    def skipped(self) -> int:
        """Entries met so far that were no records."""

    def read(self, position: str, *, count: int, block_ms: int) -> tuple[list[tuple[str, TelemetryRecord]], str]:
        """Records after ``position``, oldest first, and where to go on; waits up to ``block_ms`` (0: not at all)."""


class Store(Protocol):
    """Where the checkpoint lives; see ``tidegate.ledger.checkpoint``."""

    def load(self) -> tuple[str, bytes] | None: ...
    def save(self, position: str, state: bytes) -> bool: ...
    def release(self) -> None: ...
    def server_ms(self) -> int: ...


class Collector:
    """``start`` catches up with the stream before it returns; ``stop`` saves. Both may be repeated; use it with ``with``."""

    def __init__(
        self, ledger: Ledger, source: Source, store: Store, *, save_s: float = 5.0, jobs_s: float = 3.0
    ) -> None:
        self.ledger = ledger
        self.aggregate = Aggregate()
        self.jobs = JobsView(ledger)
        self.metrics = Metrics(self.aggregate, self.jobs)
        self.owns_checkpoint = False
        self._source = source
        self._store = store
        self._save_s = save_s
        self._jobs_s = jobs_s
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._troubles: dict[str, str] = {}
        self._offset_ms = 0.0
        self._saved_at = 0.0

    @property
    def trouble(self) -> str:
        """What went wrong last and still does; empty when all is well."""
        return "; ".join(sorted(set(self._troubles.values())))

    def now_ms(self) -> int:
        """The server's clock, by the last look at it."""
        return int(time.monotonic() * 1e3 + self._offset_ms)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Load the checkpoint, add what came since, then go on in the background. Ledger errors are raised here."""
        if self._threads:
            return
        self._stopping.clear()
        self._resume()
        while self._follow(block_ms=0):
            pass
        self.jobs.refresh()
        self._keep()
        loops = {"stream": self._follow_and_save, "jobs": self._look_at_jobs}
        self._threads = [
            threading.Thread(target=self._loop, args=(name, step), name=f"tidegate-collector-{name}", daemon=True)
            for name, step in loops.items()
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads, save, and let another collector take over."""
        if not self._threads:
            return
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        try:
            self._save()
            self._store.release()
        except LedgerError as error:
            log.warning("the checkpoint could not be saved: %s", error)

    def _resume(self) -> None:
        saved = self._store.load()
        state = decode_state(saved[1]) if saved else None
        if saved and state is None:
            log.warning("the checkpoint is of another version or damaged: counting starts anew")
        self.aggregate.restore(state or State())
        self._look_at_clock()

    def _look_at_clock(self) -> None:
        self._offset_ms = self._store.server_ms() - time.monotonic() * 1e3

    # -- in the threads ----------------------------------------------------------------------------------------
    def _loop(self, name: str, step: Callable[[], None]) -> None:
        pause_s = 0.2
        while not self._stopping.is_set():
            try:
                step()
                self._troubles.pop(name, None)
                pause_s = 0.2
            except Exception as error:  # a thread that ends would leave pages that look well and stand still
                if name not in self._troubles:
                    log.warning("%s: %s", name, error, exc_info=not isinstance(error, LedgerError))
                self._troubles[name] = str(error) or type(error).__name__
                self._stopping.wait(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)

    def _follow_and_save(self) -> None:
        self._follow(block_ms=_READ_BLOCK_MS)
        self._look_at_clock()
        self.aggregate.expire(self.now_ms())
        if time.monotonic() - self._saved_at >= self._save_s:
            self._save()

    def _follow(self, *, block_ms: int) -> bool:
        before, skipped = self.aggregate.position, self._source.skipped
        entries, position = self._source.read(before, count=_READ_COUNT, block_ms=block_ms)
        self.aggregate.add(entries, position, malformed=self._source.skipped - skipped)
        return position != before

    def _save(self) -> None:
        with self.aggregate.lock:
            position, state = self.aggregate.position, encode_state(self.aggregate.state())
        self.owns_checkpoint = self._store.save(position, state)
        self._saved_at = time.monotonic()

    def _keep(self) -> None:
        self.aggregate.expire(self.now_ms())
        self._save()

    def _look_at_jobs(self) -> None:
        self.jobs.refresh()
        self._stopping.wait(self._jobs_s)
