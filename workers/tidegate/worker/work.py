"""BatchWork: one batch while this process holds its lease."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidegate.ledger.port import Lease
from tidegate.model.outcome import Outcome
from tidegate.model.policy import TaskPolicy
from tidegate.worker import bits
from tidegate.worker.slots import Slot

if TYPE_CHECKING:
    from tidegate.executor.host import HostLimit, Lane, Run

#: Kinds of errors that are told apart in one report of a process; what comes after is counted together.
MAX_ERROR_TYPES = 64
OTHER_ERRORS = "(other)"


@dataclass(slots=True)
class WorkLane:
    """A registered task in this process: its executor lane, and counts that only the worker can make."""

    name: str
    lane: Lane
    policy: TaskPolicy
    limits: Sequence[HostLimit] = ()
    errors: Counter[str] = field(default_factory=Counter)
    crashed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def has_keys(self) -> bool:
        """Whether items may wait for a key of their own."""
        return any(limit.keyed for limit in self.limits)

    def note(self, errors: Counter[str], crashed: int) -> None:
        """Count failures by type, and items given up after crashes."""
        with self.lock:
            self.crashed += crashed
            add_bounded(self.errors, errors)

    def demand(self) -> dict[str, int]:
        """Items that wait for each cluster-wide limit of the task now."""
        waiting = {limit.name: limit.demand() for limit in self.limits}
        return {name: items for name, items in waiting.items() if items}

    def taken(self) -> tuple[dict[str, int], int]:
        """What was counted since the last call."""
        with self.lock:
            errors, self.errors = self.errors, Counter()
            crashed, self.crashed = self.crashed, 0
        return dict(errors), crashed


def add_bounded(total: Counter[str], more: Counter[str]) -> None:
    """Add counts; at most :data:`MAX_ERROR_TYPES` names, so that made-up class names cannot fill the memory."""
    for name, count in more.items():
        known = name in total or len(total) < MAX_ERROR_TYPES
        total[name if known else OTHER_ERRORS] += count


#: In an item's byte of crashes: it was running when its process died, with others, and nobody knows who did it. Such an
#: item is not charged; it runs next alone in its process, so that another death names it. The other bits count crashes.
SUSPECTED = 0x80


def crash_count(byte: int) -> int:
    """Crashes that an item is charged with."""
    return byte & ~SUSPECTED


def crash_counts(crashes: bytes) -> bytes:
    """The same for a batch."""
    return bytes(crash_count(byte) for byte in crashes)


@dataclass(frozen=True, slots=True)
class Phase:
    """One run of a batch: what to skip, and whether nothing else may run in the process meanwhile."""

    skip: bytes
    alone: bool = False


class BatchWork:
    """A leased batch and its run. ``lock`` is held around taking outcomes from the run and committing them."""

    __slots__ = (
        "arguments",
        "attempts",
        "cancelled",
        "closed",
        "crashed_out",
        "deadline_ns",
        "due_ms",
        "flushed_ns",
        "granted_ns",
        "lane",
        "late",
        "lease",
        "left",
        "lock",
        "lost",
        "queue",
        "ready_counted",
        "run",
        "skip",
        "slot",
        "tag",
        "ticket",
        "watched_left",
        "watched_ns",
        "watched_run",
        "yielding",
    )

    run: Run | None

    def __init__(
        self, lease: Lease, slot: Slot, lane: WorkLane, tag: bytes, *, queue: str = "", ticket: int = -1
    ) -> None:
        self.lease = lease
        self.slot = slot
        self.lane = lane
        self.queue = queue
        self.ticket = ticket
        self.tag = tag
        self.lock = threading.Lock()
        self.run = None
        #: The lease is ours no more: settled, handed back, or refused.
        self.closed = False
        #: Somebody else has the batch; its outcomes here are worth nothing.
        self.lost = False
        #: The lease was not renewed in time by this process's clock; nothing new is started.
        self.late = False
        self.cancelled = False
        #: What is left waits for keys and goes back to the ledger: lingering.py, which also watches how fast it shrinks.
        self.yielding = False
        self.watched_run: Run | None = None
        self.watched_ns = self.watched_left = 0
        self.granted_ns = slot.asked_ns
        self.deadline_ns = 0
        self.flushed_ns = time.monotonic_ns()
        self.due_ms = 0
        self.attempts = b""
        #: Items as they were sent, taken apart when the first failure is written down.
        self.arguments: list[bytes] | None = None
        self.ready_counted = False
        self.crashed_out: list[int] = []
        self.skip = lease.done_bits
        self.left = lease.items - (bits.count(lease.done_bits) if lease.done_bits else 0)

    def set_aside_crashed(self, max_crashes: int) -> None:
        """Items that ended their process too often are not run again."""
        crashes = crash_counts(self.lease.crashes)
        if not crashes or max(crashes) < max_crashes:
            return
        done = self.lease.done_bits
        self.crashed_out = [
            position
            for position, times in enumerate(crashes)
            if times >= max_crashes and not bits.is_set(done, position)
        ]
        self.skip = bits.union(done, bits.of(self.crashed_out, self.lease.items))

    def phases(self) -> list[Phase]:
        """The runs of the batch: one, unless items have ended their process before, or are suspected of it.

        Those run first, each alone in the process: when one of them takes its process along again, it is named, and nobody
        else is interrupted. What was interrupted has waited longest.
        """
        crashes, items = self.lease.crashes, self.lease.items
        if not crashes:
            return [Phase(self.skip)]
        suspects = [at for at, times in enumerate(crashes) if times and not bits.is_set(self.skip, at)]
        innocents = bits.union(self.skip, bits.of(suspects, items))
        phases = [Phase(innocents)] if bits.count(innocents) < items or not suspects else []
        return [Phase(bits.missing(bits.of([at], items), items), alone=True) for at in suspects] + phases

    def cancel(self, message: str) -> None:
        """End what waits as cancelled; tell what runs."""
        if not self.cancelled:
            self.cancelled = True
            if self.run is not None:
                self.run.cancel(message)

    def lose(self) -> bool:
        """The lease is somebody else's. False: a commit is under way and will find out by itself."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if self.closed:
                return False
            self.lost = True
        finally:
            self.lock.release()
        self.cancel("the lease of the batch was lost")
        return True

    def stop_starting(self) -> None:
        """Let what runs end, start nothing more."""
        if self.run is not None:
            self.run.drain()


#: Outcomes that leave a dead letter. What an operator cancelled is counted, and not kept as a failure.
DEAD_LETTER = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED})
