"""TicketRunner: what a ticket does. Claim, run, commit and claim the next, for one time slice; then back to the tail.

Each batch goes through small steps: *look up* the task, *decode* the payload, *set aside* what crashed too often, *start*
the run, *wait*, *commit and claim*. A batch that cannot be run is parked or failed with a reason, and never tried for ever.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidegate.clock import SystemClock
from tidegate.errors import JobNotFound, LedgerError, LedgerLost, LedgerUnsuitable, PayloadError, TidegateError
from tidegate.ledger.port import Committed, Lease, Ledger, Nothing, Refused, Settlement
from tidegate.model.signing import BadSignature
from tidegate.model.wire import decode_items
from tidegate.worker.commits import Committer
from tidegate.worker.gate import Gate
from tidegate.worker.held import lease_tag
from tidegate.worker.leases import LeaseKeeper
from tidegate.worker.patience import PASSING, Patience
from tidegate.worker.quiet import Quiet
from tidegate.worker.settle import fail_all
from tidegate.worker.signatures import Signatures
from tidegate.worker.slots import Slot, Slots
from tidegate.worker.work import BatchWork, WorkLane

if TYPE_CHECKING:
    from tidegate.executor.host import Run

log = logging.getLogger(__name__)

#: Times that our own code may fail on a batch before the job is parked.
_INTERNAL_TRIES = 3


@dataclass(slots=True)
class Visit:
    """One ticket at work on one slot until its time slice is over."""

    job_id: str
    ticket: int
    queue: str
    slot: Slot
    until_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What the tickets of a process work with."""

    ledger: Ledger
    lanes: Mapping[str, WorkLane]
    slots: Slots
    keeper: LeaseKeeper
    committer: Committer
    patience: Patience
    gate: Gate
    slice_s: float
    lease_s: float
    send_tickets: Callable[[str, str, tuple[int, ...]], int]
    signatures: Signatures
    begin: Callable[[BatchWork, list[object], int], Run]
    quiet: Quiet = field(default_factory=Quiet)


class TicketRunner:
    """Serves tickets. ``serve`` is called by as many threads at once as there are slots, and never raises."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._lease_ms = round(bench.lease_s * 1000)
        self._slice_ns = round(bench.slice_s * 1e9)
        self._internal: Counter[tuple[str, int]] = Counter()
        self._clock = SystemClock()
        #: Monotonic time of the last batch claimed, for the watchdog.
        self.last_claim_ns = time.monotonic_ns()

    def serve(self, job_id: str, ticket: int, queue: str) -> None:
        """Work on the job for one time slice."""
        bench = self._bench
        slot = bench.slots.take()
        try:
            if not bench.gate.wait_open():
                self.put_back(job_id, ticket, queue)
                return
            visit = Visit(job_id, ticket, queue, slot, time.monotonic_ns() + self._slice_ns)
            while self._visit(visit) and not self.put_back(job_id, ticket, queue):
                # The broker takes no messages, as a full server does. The ticket stays here, so that accepted work drains.
                visit.until_ns = time.monotonic_ns() + self._slice_ns
        except PASSING as error:
            # Given up while stopping. Leases run out, and the sweeper replaces the ticket.
            log.warning("ticket dropped job=%s reason=%s", job_id, error)
        except LedgerUnsuitable as error:
            # A job of another version. The ticket is dropped: a sweeper that knows the job replaces it.
            log.warning("ticket dropped job=%s reason=%s", job_id, error)
        except Exception:
            log.exception("ticket failed job=%s", job_id)
        finally:
            bench.keeper.leave(slot)
            bench.slots.give_back(slot)

    def _visit(self, visit: Visit) -> bool:
        """Work until the slice ends. True: the ticket is to go on."""
        lease = self._claim(visit)
        while isinstance(lease, Lease):
            lease = self._batch(visit, lease)
        return lease is None

    def _claim(self, visit: Visit) -> Lease | Nothing | None:
        """The job's next batch; ``None`` when the process began to stop instead."""
        bench, slot = self._bench, visit.slot
        nonce = slot.nonce()
        bench.keeper.visit(slot, job_id=visit.job_id, queue=visit.queue, ticket=visit.ticket, nonce=nonce)
        started = slot.asked_ns = time.monotonic_ns()
        try:
            answer = bench.patience.ask(
                lambda: bench.ledger.claim(
                    visit.job_id, ticket=visit.ticket, claimer=slot.claimer, nonce=nonce, lease_ms=self._lease_ms
                ),
                give_up=lambda: bench.gate.draining,
            )
        except (JobNotFound, LedgerLost):
            answer = Nothing.GONE
        slot.redis_ns += time.monotonic_ns() - started
        self._count_claim(slot, answer, started)
        return answer

    def _count_claim(self, slot: Slot, answer: Lease | Nothing | None, now_ns: int) -> None:
        if isinstance(answer, Lease):
            slot.claims += 1
            slot.busy()
            self.last_claim_ns = now_ns
        else:
            slot.empty_claims += 1

    def _batch(self, visit: Visit, lease: Lease) -> Lease | Nothing | None:
        """Settle one batch; what the next claim gave, ``None`` when the slice is over."""
        lane, problem = self._lane(lease.task)
        try:
            lease = self._bench.signatures.opened(lease, give_up=lambda: self._bench.gate.draining)
        except BadSignature as error:
            lane, problem = None, str(error)
        work = BatchWork(
            lease,
            visit.slot,
            lane or _no_lane(lease.task),
            lease_tag(lease),
            queue=visit.queue,
            ticket=visit.ticket,
        )
        self._bench.keeper.hold(work)
        try:
            if lane is None:
                return self._park(visit, work, problem)
            try:
                shape, items = decode_items(lease.payload)
            except PayloadError as error:
                return self._unreadable(visit, work, error)
            if len(items) != lease.items:
                return self._fail(visit, work, f"the batch holds {len(items)} items, {lease.items} were announced")
            return self._run(visit, work, items, int(shape))
        except PASSING:
            raise
        except Exception as error:
            log.exception("batch failed in the worker's own code job=%s batch=%d", lease.job_id, lease.batch)
            return self._give_up(visit, work, error)
        finally:
            self._bench.keeper.drop(work)

    # -- steps -------------------------------------------------------------------------------------------------
    def _run(self, visit: Visit, work: BatchWork, items: list[object], shape: int) -> Lease | Nothing | None:
        bench = self._bench
        work.set_aside_crashed(work.lane.policy.max_crashes)
        phases = work.phases()
        apart = [phase.skip for phase in phases if phase.alone]
        if apart:
            self._run_alone(work, items, shape, apart)
            bench.committer.part(work)
        for phase in phases:
            if not phase.alone and (not apart or self._may_go_on(work)):
                with bench.quiet.together(lambda: not self._may_go_on(work)):
                    self._run_phase(work, items, shape, phase.skip)
        if work.run is None:  # it was never its turn to run alone
            self._hand_back(work)
        return self._next(visit, work)

    def _run_alone(self, work: BatchWork, items: list[object], shape: int, skips: list[bytes]) -> None:
        """What may end the process runs when nothing else does: nobody is interrupted, and a death names it.

        Others are held up for a bounded time by each item: quiet.py.
        """
        bench = self._bench

        def hush() -> None:
            for other in bench.keeper.works():
                if other is not work:
                    other.stop_starting()

        with bench.quiet.alone(hush, lambda: not self._may_go_on(work)) as granted:
            for skip in skips if granted else ():
                if not self._may_go_on(work):
                    break
                bench.committer.part(work)
                bench.quiet.next()
                self._run_phase(work, items, shape, skip)

    def _run_phase(self, work: BatchWork, items: list[object], shape: int, skip: bytes) -> None:
        bench = self._bench
        with work.lock:
            work.skip = skip
            run = work.run = bench.begin(work, items, shape)
        if work.lease.cancel_requested:
            work.cancel("the job was cancelled")
        if work.cancelled:
            run.cancel("the job was cancelled")
        if bench.gate.draining or work.late:
            run.drain()
        run.wait(None)

    def _may_go_on(self, work: BatchWork) -> bool:
        return not (
            work.closed or work.lost or work.late or work.yielding or work.cancelled or self._bench.gate.draining
        )

    def _next(self, visit: Visit, work: BatchWork) -> Lease | Nothing | None:
        gate = self._bench.gate
        asked: list[bool] = []

        def claim_next() -> bool:
            asked.append(gate.is_open and time.monotonic_ns() < visit.until_ns)
            return asked[-1]

        reply = self._bench.committer.last(work, claim_next=claim_next, ticket=visit.ticket)
        if isinstance(reply, Committed) and reply.next is not None:
            self._bench.keeper.replace(work)
            self._count_claim(visit.slot, reply.next, time.monotonic_ns())
            return reply.next
        if isinstance(reply, Committed) and reply.job_done:
            return Nothing.GONE
        self._bench.keeper.drop(work)
        return self._after(visit)

    def _after(self, visit: Visit) -> Lease | Nothing | None:
        """Claim with a call of its own, when there is time left."""
        visit.slot.idle()
        if self._bench.gate.is_open and time.monotonic_ns() < visit.until_ns:
            return self._claim(visit)
        return None

    # -- batches that cannot be run ----------------------------------------------------------------------------
    def _unreadable(self, visit: Visit, work: BatchWork, error: PayloadError) -> Lease | Nothing | None:
        if "version" in error.facts:  # a newer producer; the batch is good, this worker is old
            return self._park(visit, work, str(error))
        return self._fail(visit, work, str(error))

    def _fail(self, visit: Visit, work: BatchWork, reason: str) -> Lease | Nothing | None:
        log.error(
            "batch cannot be read, its items fail job=%s batch=%d reason=%s",
            work.lease.job_id,
            work.lease.batch,
            reason,
        )
        self._bench.committer.send(work, fail_all(work, "PayloadError", reason, self._clock))
        work.closed = True
        self._bench.keeper.drop(work)
        return self._after(visit)

    def _park(self, visit: Visit, work: BatchWork, reason: str) -> Nothing:
        lease = work.lease
        log.error("job parked job=%s reason=%s", lease.job_id, reason)
        # Parked first: a batch that is handed back before would be claimed again at once.
        self._bench.patience.ask(
            lambda: self._bench.ledger.park(lease.job_id, reason), give_up=lambda: self._bench.gate.hurry
        )
        self._hand_back(work)
        return Nothing.PAUSED

    def _give_up(self, visit: Visit, work: BatchWork, error: Exception) -> Lease | Nothing | None:
        key = (work.lease.job_id, work.lease.batch)
        if len(self._internal) > 10_000:
            self._internal.clear()
        self._internal[key] += 1
        if self._internal[key] >= _INTERNAL_TRIES:
            return self._park(
                visit, work, f"the worker's own code failed on batch {work.lease.batch}: {error!r}"[:1000]
            )
        self._hand_back(work)
        return self._after(visit)

    def _hand_back(self, work: BatchWork) -> None:
        lease = work.lease
        work.closed = True
        if work.run is not None:
            work.run.drain()
        settlement = Settlement(settled=0, hand_back=True, attempts=lease.attempts, crashes=lease.crashes)
        self._bench.committer.send(work, settlement)
        # Not before the batch is somebody else's: should this process die first, what it holds must not pass for cancelled.
        if work.run is not None:
            work.run.cancel("handed back")
        self._bench.keeper.drop(work)

    def _lane(self, task: str) -> tuple[WorkLane | None, str]:
        """The task's lane, or why it has none."""
        try:
            lane = self._bench.lanes.get(task)
        except TidegateError as error:  # its policy cannot be met here, for example a limit of a kind that is not known
            return None, f"task {task!r} cannot be run by this worker: {error}"
        return lane, "" if lane is not None else self._unregistered(task)

    def _unregistered(self, task: str) -> str:
        known = ", ".join(sorted(self._bench.lanes)) or "none"
        return (
            f"task {task!r} is not registered on the worker (registered: {known[:500]}): "
            "import the module that defines it in the worker's app, restart the workers, then resume the job"
        )

    def put_back(self, job_id: str, ticket: int, queue: str) -> bool:
        """Send a ticket on, if it is still current. False: the broker did not take it, and this process may work on."""
        bench = self._bench
        try:
            if bench.ledger.touch_ticket(job_id, ticket):
                return bool(bench.send_tickets(queue, job_id, (ticket,))) or not bench.gate.is_open
        except LedgerError as error:
            log.debug("ticket not put back job=%s reason=%s", job_id, error)
        return True


def _no_lane(task: str) -> WorkLane:
    from tidegate.model.policy import TaskPolicy

    return WorkLane(task, None, TaskPolicy())  # type: ignore[arg-type]  # it never runs anything


__all__ = ["Bench", "Refused", "TicketRunner", "Visit"]
