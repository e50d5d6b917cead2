"""HandBack: what the supervisor does for a process that died. Its leases go back at once, and what was running is charged.

The item that ended the process is charged with a crash, and it alone. When several were running and nobody knows which it
was, they are suspected, and not charged: each runs next alone in its process. (Were some of them there at earlier deaths, who
was there most often is charged.) Items that had ended and were not yet committed are committed here, from the outcome log;
items that had not started are not blamed. An item that has crashed too often becomes a dead letter when its batch is claimed
next: whoever claims it has the arguments, and finds the account of the crash stored here.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Collection

from tidegate.errors import LedgerError
from tidegate.ledger.port import Committed, Lease, Ledger, Refused, Settlement
from tidegate.worker import bits
from tidegate.worker.crash import Death, Salvage
from tidegate.worker.ended import Ended, ended_items
from tidegate.worker.held import HeldLease
from tidegate.worker.patience import PASSING
from tidegate.worker.settle import crash_fingerprint
from tidegate.worker.work import SUSPECTED, crash_count

log = logging.getLogger(__name__)

SendTickets = Callable[[str, str, tuple[int, ...]], None]
#: What a commit is refused with that settles what is settled already.
OVERLAP = "overlap"
#: Should the supervisor die while it holds a lease that it has only claimed to give it back.
_BRIEFLY_MS = 1000


class HandBack:
    """For one dead process. ``send_tickets(queue, job_id, numbers)``: its tickets go on, so that others go on at once."""

    def __init__(self, ledger: Ledger, found: Salvage, death: Death, send_tickets: SendTickets) -> None:
        self._ledger = ledger
        self._running = found.running
        self._ended = found.ended
        self._named = found.named
        self._death = death
        self._send_tickets = send_tickets
        self._asked = [held for held in found.held if held.asked]
        self._leases = [held for held in found.held if held.is_lease]
        self._tickets = [held for held in found.held if held.ticket >= 0]
        #: Deaths at which some item that was running now was there before.
        self._most = max(
            (_deaths(held, at) for held in found.held for at in self._running.get(held.tag, ())), default=0
        )
        self._nonces: dict[str, str] = {}
        #: Leases that the ledger took back, and items that were committed for the dead process.
        self.taken = 0
        self.committed = 0

    def run(self, patience_s: float, stop: threading.Event) -> None:
        """Hand everything back; tries for ``patience_s`` while the ledger is away, by then the leases have expired."""
        waited_s, wait_s = 0.0, 0.05
        while not self._attempt() and waited_s < patience_s and not stop.wait(wait_s):
            waited_s += wait_s
            wait_s = min(1.0, wait_s * 2)

    def _attempt(self) -> bool:
        """One try; whether everything is settled."""
        # First what was asked for: the ledger remembers each claimer's last request only.
        self._asked = [held for held in self._asked if not self._ask_again(held)]
        if self._asked:
            return False
        self._leases = [held for held in self._leases if not self._give_back(held)]
        if self._leases:
            return False
        self._tickets = [held for held in self._tickets if not self._send_on(held)]
        return not self._tickets

    def _ask_again(self, held: HeldLease) -> bool:
        """The answer to a claim may have been under way. Asked by the same nonce, the ledger gives the same answer."""
        try:
            answer = self._ledger.claim(
                held.job_id, ticket=held.ticket, claimer=held.claimer, nonce=held.asked, lease_ms=_BRIEFLY_MS
            )
        except PASSING:
            return False
        except LedgerError as error:
            log.debug("claim not asked again job=%s reason=%s", held.job_id, error)
            return True
        if isinstance(answer, Lease):
            self._leases.append(_as_held(answer, held.queue))
        return True

    def _give_back(self, held: HeldLease) -> bool:
        positions = self._running.get(held.tag, ()) if held.tag else ()
        nonce = self._nonces.setdefault(held.nonce, secrets.token_hex(8))
        try:
            ended = self._to_commit(held)
            settlement = self._settlement(held, positions, ended)
            reply = self._ledger.commit(held.lease(), settlement, nonce=nonce, lease_ms=_BRIEFLY_MS)
        except PASSING:
            return False
        except LedgerError as error:
            log.warning("lease not handed back job=%s batch=%d reason=%s", held.job_id, held.batch, error)
            return True
        if isinstance(reply, Refused) and reply.reason == OVERLAP:
            return False  # a commit of the dead process was still on its way: look again at what it brought
        self._note(held, positions, ended, reply)
        return True

    def _to_commit(self, held: HeldLease) -> Ended:
        recorded = self._ended.get(held.tag) if held.tag else None
        if not recorded:
            return Ended()
        # Some of it may have been committed, by a call whose answer the dead process did not live to see.
        done_bits = self._ledger.done_bits(held.job_id, held.batch)
        return ended_items(held, recorded, bits.union(held.done_bits, done_bits))

    def _settlement(self, held: HeldLease, positions: Collection[int], ended: Ended) -> Settlement:
        crashes = bytearray(held.crashes or bytes(held.items))
        charged, suspected = self._blame(held, positions)
        for position in charged:
            crashes[position] = min(SUSPECTED - 1, crash_count(crashes[position]) + 1)
        for position in suspected:
            crashes[position] |= SUSPECTED
        traces = dict(ended.traces)
        if charged:
            traces[crash_fingerprint(held.task)] = self._account(held, positions)
        return Settlement(
            settled=len(ended.positions),
            bits=bits.of(ended.positions, held.items) if ended.positions else b"",
            outcomes=ended.outcomes,
            executions=ended.executions + len(positions),
            retries=ended.executions - len(ended.positions) if ended.executions > len(ended.positions) else 0,
            results=ended.results,
            failures=ended.failures,
            traces=traces,
            errors=ended.errors,
            hand_back=True,
            attempts=held.attempts,
            crashes=bytes(crashes) if positions else b"",
        )

    def _blame(self, held: HeldLease, positions: Collection[int]) -> tuple[list[int], list[int]]:
        """Positions to charge, and positions to suspect.

        One of several that were running is not charged: it runs next alone, and then it will be known. Unless that was tried:
        a suspect that held the others up for too long was joined by them, and it was there at more deaths than they.
        """
        running = sorted(position for position in positions if position < held.items)
        known = {at for at in running if self._named or 0 < self._most == _deaths(held, at)}
        return sorted(known), [at for at in running if at not in known]

    def _account(self, held: HeldLease, positions: Collection[int]) -> str:
        """What is known of the crash, as the dead letter's trace."""
        death = self._death
        items = ", ".join(str(held.first_index + position) for position in sorted(positions)[:20])
        more = "" if len(positions) <= 20 else f" and {len(positions) - 20} more"
        memory = (
            f"It used {death.memory:,} bytes of memory when it last looked"
            if death.memory
            else "Its memory is not known"
        )
        limit = f", its limit is {death.memory_limit:,}" if death.memory_limit else ""
        return (
            f"Worker process {death.pid} {death}.\n"
            f"By its crash journal it was running of task {held.task}: item {items}{more}.\n"
            f"{memory}{limit}.\n"
            "A process that dies leaves no Python traceback; its last words, if any, are in the worker's log."
        )

    def _note(self, held: HeldLease, positions: Collection[int], ended: Ended, reply: Committed | Refused) -> None:
        if isinstance(reply, Refused):  # settled in the last moment, or expired already
            log.info("lease was not held any more job=%s batch=%d", held.job_id, held.batch)
            return
        self.taken += 1
        self.committed += len(ended.positions)
        if reply.tickets:
            self._send_tickets(held.queue, held.job_id, reply.tickets)
        charged, suspected = (
            [held.first_index + at for at in some[:20]] or "none" for some in self._blame(held, positions)
        )
        log.warning(
            "lease handed back job=%s batch=%d charged_items=%s suspected_items=%s committed=%d lost=%d",
            *(held.job_id, held.batch, charged, suspected, len(ended.positions), ended.lost),
        )

    def _send_on(self, held: HeldLease) -> bool:
        try:
            if held.queue and self._ledger.touch_ticket(held.job_id, held.ticket):
                self._send_tickets(held.queue, held.job_id, (held.ticket,))
        except PASSING:
            return False
        except LedgerError as error:
            log.debug("ticket not sent on, the sweeper replaces it reason=%s", error)
        return True


def _deaths(held: HeldLease, position: int) -> int:
    """Charged before, doubled; one more if it is a suspect."""
    byte = held.crashes[position] if position < len(held.crashes) else 0
    return 2 * crash_count(byte) + (byte != crash_count(byte))


def _as_held(lease: Lease, queue: str) -> HeldLease:
    """A lease that nobody worked on; it has no tag, so nothing of it is charged."""
    return HeldLease(
        tag=b"",
        job_id=lease.job_id,
        batch=lease.batch,
        epoch=lease.token.epoch,
        nonce=lease.token.nonce,
        claimer=lease.claimer,
        items=lease.items,
        first_index=lease.first_index,
        task=lease.task,
        attempts=lease.attempts,
        crashes=lease.crashes,
        done_bits=lease.done_bits,
        queue=queue,
    )
