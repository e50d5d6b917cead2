"""Load: a job that is submitted for as long as faults happen, so that none of them meets idle workers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType

from storm.chaos_app import register
from storm.scene import Scene
from tidegate import Job, Tidegate
from tidegate.model.job import new_job_id
from tidegate.testing.chaos.check import Verdict

#: Batches that wait in the ledger, at most: a second or two of work.
_WAITING_BATCHES = 160


class Load:
    """At least ``items`` items of ``chaos.note``, and more until ``settled`` is asked for. Use as a context manager."""

    def __init__(self, stage: Scene, items: int, *, wait_ms: float, batch_size: int) -> None:
        self._stage = stage
        self._least = items
        self._wait_ms = wait_ms
        self._batch_size = batch_size
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._submit, daemon=True)
        self._error: BaseException | None = None
        self.items = 0
        self.job: Job[object] = stage.gate.job(new_job_id())

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()

    def settled(self, patience_s: float) -> Verdict:
        """Submit no more than was promised, wait for the end, and check."""
        self._enough.set()
        self._thread.join(patience_s)
        if self._error is not None:
            raise self._error
        self._stage.settle(self.job, patience_s)
        return self._stage.check(self.job, self.items)

    def _submit(self) -> None:
        try:
            with contextlib.closing(register(Tidegate(self._stage.url, max_pending_batches=_WAITING_BATCHES))) as gate:
                gate.map("chaos.note", self._numbers(), id=self.job.id, batch_size=self._batch_size)
        except BaseException as error:  # for the thread that waits
            self._error = error

    def _numbers(self) -> Iterator[float]:
        while self.items < self._least or not self._enough.is_set():
            self.items += 1
            yield self._wait_ms
