"""Liveness: tells the ledger that a producer lives while its source is slow or it waits for room.

A daemon thread of the submission: nobody else calls it, it dies with its process, and a forked child does not have it. What it
cannot tell a server that is away is made up for by the next chunk, which opens a job that was cut short again.
"""

from __future__ import annotations

import logging
import threading

from tidegate.errors import LedgerError
from tidegate.ledger.port import Ledger
from tidegate.model.job import JobSpec

_log = logging.getLogger("tidegate.producer")

#: The producer speaks so often within the time after which it counts as dead.
_WORDS = 4
_LONGEST_S = 30.0


class Liveness:
    """``start`` once the job is open; ``stop`` before it is sealed or given up. Both may be repeated."""

    def __init__(self, ledger: Ledger, spec: JobSpec) -> None:
        self._ledger = ledger
        self._job_id = spec.job_id
        self._every_s = min(_LONGEST_S, spec.silent_s / _WORDS)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to speak."""
        if self._thread is None and self._every_s > 0:
            self._thread = threading.Thread(target=self._run, name="tidegate-producer-lives", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Fall silent."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._ledger.feed(self._job_id)
            except LedgerError as error:
                _log.debug("the ledger was not told that the producer lives job=%s reason=%s", self._job_id, error)
