"""Committer: takes what a run has settled and commits it: in parts, at the end, or with the lease handed back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidegate.errors import JobNotFound, LedgerLost
from tidegate.ledger.port import Committed, Ledger, Refused, Settlement
from tidegate.worker.gate import Gate
from tidegate.worker.patience import PASSING, Patience
from tidegate.worker.settle import Ending, Packer
from tidegate.worker.slots import Slot
from tidegate.worker.work import BatchWork

if TYPE_CHECKING:
    from tidegate.executor.host import Settled

log = logging.getLogger(__name__)

#: How long a process that is to stop waits for a ledger that does not answer.
_LAST_WAIT_S = 2.0


class Committer:
    """Every commit of a process goes through here. ``send_tickets(queue, job_id, numbers)`` puts tickets out;
    ``asking(slot, nonce)`` is told of every request that claims a batch, before it is sent."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        packer: Packer,
        patience: Patience,
        gate: Gate,
        lease_ms: int,
        send_tickets: Callable[[str, str, tuple[int, ...]], object],
        asking: Callable[[int, str], None],
    ) -> None:
        self._ledger = ledger
        self._packer = packer
        self._patience = patience
        self._gate = gate
        self._lease_ms = lease_ms
        self._send_tickets = send_tickets
        self._asking = asking

    def part(self, work: BatchWork) -> None:
        """Commit what has been settled so far, if anything."""
        with work.lock:
            work.flushed_ns = time.monotonic_ns()
            if work.closed or work.lost or work.run is None:
                return
            settled = work.run.take()
            self._remember(work, settled)
            if not settled.count or work.closed:
                return
            # When this was all that was left, the lease ends with it; the ticket then claims with a call of its own.
            all_done = settled.count + len(work.crashed_out) == work.left
            self._tell(work, settled, Ending())
            work.closed = work.closed or all_done

    def last(
        self, work: BatchWork, *, claim_next: Callable[[], bool], ticket: int, keeping: bool = False
    ) -> Committed | Refused | None:
        """Commit what is left once the run has ended, and claim the next batch in the same call when ``claim_next()``.

        ``None``: the lease was lost or somebody else ended it; nothing was written by this call.
        """
        with work.lock:
            if work.closed or work.lost or work.run is None:
                return None
            settled = work.run.take()
            self._remember(work, settled)
            left = work.left - settled.count - len(work.crashed_out)
            ending = Ending(True, work.due_ms, work.attempts or work.lease.attempts) if left else Ending()
            reply = self._tell(work, settled, ending, claim_next=claim_next(), ticket=ticket)
            work.closed = True
            return reply

    def hand_back(self, work: BatchWork) -> bool:
        """Commit what is settled and give up the rest now, whatever runs. False: the ledger could not be told."""
        if not work.lock.acquire(timeout=_LAST_WAIT_S):
            return False
        try:
            if work.closed or work.lost or work.run is None:
                return True
            settled = work.run.take()
            self._remember(work, settled)
            self._tell(work, settled, Ending(True, work.due_ms, work.attempts or work.lease.attempts))
            work.closed = True
        except PASSING:
            return False
        finally:
            work.lock.release()
        return True

    def send(
        self, work: BatchWork, settlement: Settlement, *, claim_next: bool = False, ticket: int = 0
    ) -> Committed | Refused:
        """One commit: repeated with the same nonce until it is answered; counted; its tickets sent."""
        slot = work.slot
        nonce = slot.nonce()
        if claim_next:
            self._asking(slot.number, nonce)
        deadline: list[float] = []

        def give_up() -> bool:
            if not self._gate.hurry:
                return False
            if not deadline:
                deadline.append(time.monotonic() + _LAST_WAIT_S)
            return time.monotonic() >= deadline[0]

        def call() -> Committed | Refused:
            return self._ledger.commit(
                work.lease, settlement, nonce=nonce, lease_ms=self._lease_ms, claim_next=claim_next, ticket=ticket
            )

        started = slot.asked_ns = time.monotonic_ns()
        try:
            reply = self._patience.ask(call, give_up=give_up)
        except (JobNotFound, LedgerLost) as error:
            reply = Refused(str(error))
        slot.redis_ns += time.monotonic_ns() - started
        if isinstance(reply, Refused):
            self._refused(work, slot, reply)
            return reply
        slot.commits += 1
        if settlement.traces:
            self._packer.committed(work, settlement)
        if reply.tickets:
            self._send_tickets(work.queue, work.lease.job_id, reply.tickets)
        if reply.cancel_requested:
            work.cancel("the job was cancelled")
        return reply

    def _tell(
        self, work: BatchWork, settled: Settled, ending: Ending, *, claim_next: bool = False, ticket: int = 0
    ) -> Committed | Refused:
        """Send all parts of a settlement; the last one claims the next batch. Stops at the first that is refused."""
        *parts, final = self._packer.pack(work, settled, ending)
        for part in parts:
            reply = self.send(work, part)
            if isinstance(reply, Refused):
                return reply
            work.left -= part.settled
        reply = self.send(work, final, claim_next=claim_next, ticket=ticket)
        work.left -= final.settled
        if work.run is not None:
            work.run.reported()
        return reply

    def _refused(self, work: BatchWork, slot: Slot, reply: Refused) -> None:
        slot.stale_commits += 1
        work.closed = True
        log.warning(
            "commit refused, results dropped job=%s batch=%d reason=%s",
            work.lease.job_id,
            work.lease.batch,
            reply.reason,
        )
        work.cancel("the lease of the batch was lost")

    @staticmethod
    def _remember(work: BatchWork, settled: Settled) -> None:
        if settled.deferred:
            # No item may come back before its time, so the batch waits for the latest.
            work.due_ms = max(work.due_ms, *(due_ms for _, due_ms in settled.deferred))
        if settled.attempts:
            work.attempts = settled.attempts
