"""Writing chunks with backpressure: the gate that closes by itself when the water beyond it rises.

A chunk that the ledger will not take yet is kept here, and the source is not asked for more, until workers have caught up.
Waiting costs a short question now and then, not the payload again and again, and no CPU.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from tidegate.errors import JobEnded, LedgerFull, LedgerUnavailable
from tidegate.ledger.port import Ledger
from tidegate.model.job import BatchPayload, JobSpec, Progress
from tidegate.model.outcome import JobState

_log = logging.getLogger("tidegate.producer")

_SHORTEST_WAIT_S = 0.005
_LONGEST_WAIT_S = 0.25
#: A server that went away may come back; after this long it is an error.
_UNAVAILABLE_S = 30.0
#: Waiting this long for workers is worth a line in the log.
_WARN_AFTER_S = 5.0

#: Puts a job's tickets into its queue; never raises, because a sweeper replaces tickets that did not arrive.
SendTickets = Callable[[str, Sequence[int]], object]


class SubmissionStopped(Exception):
    """The job ended (somebody cancelled it) or the caller gave up: there is no use in going on."""


class Flow:
    """One job's way into the ledger. ``patience_s``: seconds to wait at the mark before ``LedgerFull``; ``None``: for ever."""

    def __init__(self, ledger: Ledger, spec: JobSpec, send: SendTickets, *, patience_s: float | None = None) -> None:
        self._ledger = ledger
        self._spec = spec
        self._send = send
        self._patience_s = patience_s
        self._stop = threading.Event()
        #: Whether an ``append`` is waiting for room now.
        self.waiting = False

    def stop(self) -> None:
        """Make a waiting ``append`` give up with ``SubmissionStopped`` (any thread)."""
        self._stop.set()

    def append(self, chunk: int, batches: Sequence[BatchPayload]) -> None:
        """Write one chunk and send the tickets that it calls for; returns when it is in the ledger."""
        size = sum(len(batch.data) for batch in batches)
        pause = _Pause(self._stop, self._patience_s)
        lost_at: float | None = None
        while True:
            try:
                appended = self._ledger.append(self._spec.job_id, chunk, batches)
            except LedgerUnavailable:
                # Appending the same chunk again writes nothing twice, so a broken connection needs no thought.
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > _UNAVAILABLE_S:
                    raise
                pause.take()
                continue
            except LedgerFull as error:  # the server is out of memory: only if ours is what fills it, waiting helps
                if not _pending(self._room_or_raise(pause, error)):
                    raise
                continue
            except JobEnded as error:
                stands = self._ledger.progress(self._spec.job_id)
                if _is_cancelled(stands):
                    raise SubmissionStopped from error
                if not stands.cut_short:
                    raise
                _log.warning("job %s had been cut short while this producer was silent, and goes on", self._spec.job_id)
                self._ledger.open(self._spec)
                continue
            if not appended.full:
                if appended.tickets:
                    self._send(self._spec.job_id, appended.tickets)
                self.waiting = False
                return
            self.waiting = True
            self._wait_for_room(pause, len(batches), size)

    def _wait_for_room(self, pause: _Pause, batches: int, size: int) -> None:
        spec = self._spec
        full = LedgerFull(
            f"job {spec.job_id} has waited at its high-water mark",
            remedy="add workers, raise max_pending_bytes and max_pending_batches, or wait without a limit",
        )
        while True:
            stands = self._room_or_raise(pause, full)
            pending = _pending(stands)
            if not pending or (
                pending + batches <= spec.max_pending_batches and stands.pending_bytes + size <= spec.max_pending_bytes
            ):
                return

    def _room_or_raise(self, pause: _Pause, when_out_of_patience: LedgerFull) -> Progress:
        if not pause.take():
            raise when_out_of_patience
        stands = self._ledger.progress(self._spec.job_id)
        if _is_cancelled(stands):
            raise SubmissionStopped
        if pause.waited_s > _WARN_AFTER_S and not pause.warned:
            pause.warned = True
            _log.warning(
                "job %s is at its high-water mark (%d batches, %d bytes pending) and waits: %s",
                self._spec.job_id,
                _pending(stands),
                stands.pending_bytes,
                "workers are slower than the producer" if self._ledger.workers() else "no worker is running",
            )
        return stands


def _is_cancelled(stands: Progress) -> bool:
    return stands.cancelling or stands.state is JobState.CANCELLED


def _pending(stands: Progress) -> int:
    return stands.batches - stands.batches_done


class _Pause:
    """Waits that grow from 5 ms to a quarter of a second, and end early when the submission is stopped."""

    def __init__(self, stop: threading.Event, patience_s: float | None) -> None:
        self._stop = stop
        self._patience_s = patience_s
        self._next_s = _SHORTEST_WAIT_S
        self.waited_s = 0.0
        self.warned = False

    def take(self) -> bool:
        """Wait once. False: out of patience."""
        if self._patience_s is not None and self.waited_s >= self._patience_s:
            return False
        began = time.monotonic()
        if self._stop.wait(self._next_s):
            raise SubmissionStopped
        self.waited_s += time.monotonic() - began
        self._next_s = min(_LONGEST_WAIT_S, self._next_s * 1.5)
        return True
