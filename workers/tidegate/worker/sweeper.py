"""Sweeper: keeps every job going. In every process, one at work at a time, by a turn in the ledger.

It also registers the process with its slots, which is how many tickets a job's window may hold.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping

from tidegate.errors import JobNotFound, LedgerError, LedgerUnsuitable
from tidegate.ledger.port import Ledger
from tidegate.worker.patience import PASSING, Patience

log = logging.getLogger(__name__)

#: Turns that a sweeper leaves to others after it met a job that it must not touch; a turn lapses within one.
_TURNS_LEFT = 2
_JOBS_TOLD = 1000

Facts = Mapping[str, str | int | float]


class Sweeper:
    """One pass is bounded: at most ``jobs_limit`` jobs, the longest unswept first, and ``limit`` batches of each.

    ``send_tickets(queue, job_id, numbers)`` says how many went out; ``serve_here`` takes the same when none did.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        worker: str,
        slots: int,
        sweep_s: float,
        send_tickets: Callable[[str, str, tuple[int, ...]], object],
        facts: Callable[[], Facts],
        serve_here: Callable[[str, str, tuple[int, ...]], None] = lambda *_: None,
        patience: Patience | None = None,
        jobs_limit: int = 1000,
    ) -> None:
        self._ledger = ledger
        self._worker = worker
        self._slots = slots
        self._sweep_ms = round(sweep_s * 1000)
        self._send_tickets = send_tickets
        self._facts = facts
        self._serve_here = serve_here
        self._patience = patience
        self._jobs_limit = jobs_limit
        self._let_others = 0
        self._told: OrderedDict[str, None] = OrderedDict()
        self.sweeps = 0
        self.expired_leases = 0

    def turn(self) -> None:
        """Register the process; sweep when it is this one's turn. A ledger that is away is noted, not raised."""
        try:
            live_slots = self.heartbeat()
            if self._let_others:
                self._let_others -= 1
            elif self._ledger.try_sweep_turn(self._worker, self._sweep_ms):
                self.sweep(live_slots)
        except PASSING as error:
            if self._patience is not None:
                self._patience.missed(error)
        else:
            if self._patience is not None:
                self._patience.heard()

    def heartbeat(self) -> int:
        """Register or refresh this process; the live slots of the cluster."""
        return self._ledger.heartbeat(
            self._worker, slots=self._slots, ttl_ms=max(5000, 5 * self._sweep_ms), facts=self._facts()
        )

    def sweep(self, live_slots: int) -> None:
        """One pass over the active jobs; one that goes wrong does not keep the others from being swept."""
        self.sweeps += 1
        for job_id in self._ledger.active_jobs(self._jobs_limit):
            try:
                self._sweep_job(job_id, live_slots)
            except JobNotFound:
                continue
            except PASSING:
                raise
            except LedgerUnsuitable as error:
                # A job of another version: a process that knows it must get a turn. It is told once.
                self._let_others = _TURNS_LEFT
                if job_id not in self._told:
                    self._told[job_id] = None
                    log.warning("job left alone job=%s reason=%s", job_id, error)
                while len(self._told) > _JOBS_TOLD:
                    self._told.popitem(last=False)
            except LedgerError as error:
                log.warning("job not swept job=%s reason=%s", job_id, error)
        self._ledger.expire()

    def _sweep_job(self, job_id: str, live_slots: int) -> None:
        # Unseen for one sweep is lost, so that what lost all its tickets goes on within two.
        swept = self._ledger.sweep(job_id, slots=live_slots, stall_ms=self._sweep_ms)
        if swept.tickets and not self._send_tickets(swept.queue, job_id, swept.tickets):
            # The broker takes no messages, as a full server does. Those that these replace are worth nothing any more.
            self._serve_here(swept.queue, job_id, swept.tickets)
        if swept.expired_leases:
            self.expired_leases += swept.expired_leases
            log.warning("leases expired, batches are ready again job=%s count=%d", job_id, swept.expired_leases)
