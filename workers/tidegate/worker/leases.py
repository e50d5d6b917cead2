"""LeaseKeeper: renews every lease that the process holds, from a thread of its own.

All leases go in one call, every third of a lease. A job that was cancelled is noticed here at the latest. Deadlines are
watched by this process's monotonic clock in :meth:`LeaseKeeper.check_deadlines`, which does no input or output: when the
ledger does not answer for a whole lease, nothing new is started, because somebody else may have the batch by then.
"""

from __future__ import annotations

import logging
import threading
import time

from tidegate.errors import LedgerLost
from tidegate.ledger.port import Ledger
from tidegate.worker.held import HeldFile
from tidegate.worker.patience import PASSING, Patience
from tidegate.worker.slots import Slot
from tidegate.worker.work import BatchWork

log = logging.getLogger(__name__)


class LeaseKeeper:
    """Holds the process's batches by claimer. Claiming registers, settling removes; both cost a dictionary access."""

    def __init__(self, ledger: Ledger, held: HeldFile, patience: Patience, lease_s: float) -> None:
        self._ledger = ledger
        self._held = held
        self._patience = patience
        self._lease_ns = round(lease_s * 1e9)
        self._lease_ms = round(lease_s * 1e3)
        self._works: dict[int, BatchWork] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="tidegate-leases", daemon=True)
        self.lost = 0

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; what is still held expires."""
        self._stop.set()

    def hold(self, work: BatchWork) -> None:
        """Renew this lease from now on, and let the supervisor know of it."""
        work.deadline_ns = work.granted_ns + self._lease_ns
        self._held.write(
            work.slot.number,
            work.tag,
            work.lease,
            hard_timeout_s=work.lane.policy.hard_timeout or 0.0,
            queue=work.queue,
            ticket=work.ticket,
        )
        self._works[work.slot.number] = work

    def visit(self, slot: Slot, *, job_id: str, queue: str, ticket: int, nonce: str) -> None:
        """A ticket is about to ask for a batch."""
        self._held.visit(slot.number, slot.claimer, job_id=job_id, queue=queue, ticket=ticket, nonce=nonce)

    def leave(self, slot: Slot) -> None:
        """The ticket has left the slot."""
        self._held.clear(slot.number)

    def drop(self, work: BatchWork) -> None:
        """The lease has ended."""
        if self._works.get(work.slot.number) is work:
            del self._works[work.slot.number]
            self._held.clear(work.slot.number)

    def replace(self, work: BatchWork) -> None:
        """The lease has ended, and the slot has the next one already: what the supervisor sees stays until that is noted."""
        if self._works.get(work.slot.number) is work:
            del self._works[work.slot.number]

    def works(self) -> list[BatchWork]:
        """What is held now."""
        return list(self._works.values())

    def by_tag(self, tag: bytes) -> BatchWork | None:
        """The batch that is held under a tag."""
        return next((work for work in self.works() if work.tag == tag), None)

    def check_deadlines(self) -> None:
        """Start nothing more of a batch whose lease may have passed."""
        now = time.monotonic_ns()
        for work in self.works():
            if now > work.deadline_ns and not work.late:
                work.late = True
                log.warning("lease not renewed in time job=%s batch=%d", work.lease.job_id, work.lease.batch)
                work.stop_starting()

    def renew(self) -> None:
        """Renew what is older than a third of a lease; errors of a ledger that is away are noted and raised no further."""
        now = time.monotonic_ns()
        works = self.works()
        if not any(now - (work.deadline_ns - self._lease_ns) >= self._lease_ns // 3 for work in works):
            return
        try:
            kept = self._ledger.renew([work.lease for work in works], lease_ms=self._lease_ms)
        except PASSING as error:
            self._patience.missed(error)
            return
        except LedgerLost as error:
            log.error("the ledger lost its data, all leases with it reason=%s", error)
            kept = [False] * len(works)
        self._patience.heard()
        for work, answer in zip(works, kept, strict=True):
            if answer is False:
                self._lose(work)
                continue
            work.deadline_ns = now + self._lease_ns
            if answer is None:
                work.cancel("the job was cancelled")

    def _lose(self, work: BatchWork) -> None:
        # A batch that was settled while the question was under way is not lost.
        if self._works.get(work.slot.number) is work and work.lose():
            self.lost += 1
            work.slot.stale_commits += 1
            log.warning("lease lost, results dropped job=%s batch=%d", work.lease.job_id, work.lease.batch)

    def _keep(self) -> None:
        tick_s = self._lease_ns / 12e9
        while not self._stop.wait(tick_s):
            try:
                self.renew()
            except Exception:
                # Whatever went wrong, the other leases still have to be renewed.
                log.exception("leases could not be renewed")
