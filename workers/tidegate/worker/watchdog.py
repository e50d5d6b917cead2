"""Watchdog: a worker that looks alive and does nothing. First its stacks go to the log and it reconnects, then it goes.

It is a sign of trouble only when all of this holds for a while: slots are free, the server answers, a job of one of our
queues has ready batches and is not held, its task is registered here, and this process has claimed nothing.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import time
from collections.abc import Callable, Collection

from tidegate.errors import JobNotFound
from tidegate.ledger.port import Ledger
from tidegate.model.outcome import JobState
from tidegate.worker.patience import PASSING

log = logging.getLogger(__name__)

_JOBS_LOOKED_AT = 50
#: Looks in a row, a second or so apart, that have to find a job waiting: one may just have come.
_LOOKS = 3


class Watchdog:
    """``seconds``: how long without a claim is too long. ``check`` is called about once a second."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        seconds: float,
        queues: Collection[str],
        tasks: Collection[str],
        could_claim: Callable[[], bool],
        last_claim_ns: Callable[[], int],
        reconnect: Callable[[], None],
        replace: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._queues = queues
        self._tasks = tasks
        self._could_claim = could_claim
        self._last_claim_ns = last_claim_ns
        self._reconnect = reconnect
        self._replace = replace
        self._since = time.monotonic()
        self._reconnected = False
        self._looks = 0

    def check(self) -> None:
        """Look once. The ledger is asked only when this process has been idle for long."""
        now = time.monotonic()
        if not self._could_claim():
            self._calm(now)
            return
        if self._last_claim_ns() / 1e9 > self._since:
            self._calm(self._last_claim_ns() / 1e9)
        if now - self._since < self._seconds:
            return
        try:
            job_id = self._job_that_waits()
        except PASSING:
            job_id = ""
        if not job_id:
            self._calm(now)
            return
        self._looks += 1
        if self._looks < _LOOKS:
            return
        self._looks = 0
        if not self._reconnected:
            log.error(
                "nothing claimed for %.0f s although job %s has ready batches, reconnecting", now - self._since, job_id
            )
            dump_stacks()
            self._reconnected = True
            self._since = now
            self._reconnect()
        else:
            log.error(
                "nothing claimed after reconnecting although job %s has ready batches, process is replaced", job_id
            )
            dump_stacks()
            self._replace("alive and doing nothing")

    def _calm(self, now: float) -> None:
        self._since = now
        self._reconnected = False
        self._looks = 0

    def _job_that_waits(self) -> str:
        for job_id in self._ledger.active_jobs(_JOBS_LOOKED_AT):
            try:
                job = self._ledger.progress(job_id)
            except JobNotFound:
                continue
            held = job.paused or job.state is JobState.PARKED
            if job.ready_batches and not held and job.queue in self._queues and job.task in self._tasks:
                return job_id
        return ""


def dump_stacks() -> None:
    """Every thread's stack, to the log."""
    sys.stderr.flush()
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
