"""Slots: the places of one process in which batches are at work, with the counts that telemetry reports."""

from __future__ import annotations

import queue
import secrets
import time
from dataclasses import dataclass


class Slot:
    """One place. Only the thread that holds it writes; others read, and see each number whole."""

    __slots__ = (
        "_prefix",
        "asked_ns",
        "busy_from_ns",
        "busy_ns",
        "claimer",
        "claims",
        "commits",
        "empty_claims",
        "number",
        "redis_ns",
        "requests",
        "stale_commits",
    )

    def __init__(self, number: int, claimer: str) -> None:
        self.number = number
        self.claimer = claimer
        self._prefix = secrets.token_hex(8)
        #: When the last request was first sent: a lease that it was granted is no younger than that.
        self.asked_ns = 0
        self.busy_ns = 0
        self.busy_from_ns = 0
        self.claims = 0
        self.empty_claims = 0
        self.commits = 0
        self.stale_commits = 0
        self.redis_ns = 0
        self.requests = 0

    def nonce(self) -> str:
        """A name for the next request, never used before and never again."""
        self.requests += 1
        return f"{self._prefix}x{self.requests:x}"

    def busy(self) -> None:
        """It has a batch."""
        if not self.busy_from_ns:
            self.busy_from_ns = time.monotonic_ns()

    def idle(self) -> None:
        """It has none."""
        since, self.busy_from_ns = self.busy_from_ns, 0
        if since:
            self.busy_ns += time.monotonic_ns() - since

    def busy_until_ns(self, now_ns: int) -> int:
        """Time spent with a batch, ever."""
        since = self.busy_from_ns
        return self.busy_ns + (max(0, now_ns - since) if since else 0)


@dataclass(frozen=True, slots=True)
class SlotTotals:
    """Sums over the slots of a process, since it started."""

    busy_ns: int
    claims: int
    empty_claims: int
    commits: int
    stale_commits: int
    redis_ns: int


class Slots:
    """The slots of a process. A ticket takes one for as long as it works."""

    def __init__(self, worker: str, count: int) -> None:
        self.all = tuple(Slot(number, f"{worker}/{number}") for number in range(count))
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()
        for slot in reversed(self.all):
            self._free.put(slot)

    def take(self) -> Slot:
        """A free slot; waits for one."""
        return self._free.get()

    def give_back(self, slot: Slot) -> None:
        """The ticket is done with it."""
        slot.idle()
        self._free.put(slot)

    @property
    def free(self) -> int:
        """How many are free now."""
        return self._free.qsize()

    def totals(self, now_ns: int) -> SlotTotals:
        """The sums now."""
        slots = self.all
        return SlotTotals(
            busy_ns=sum(slot.busy_until_ns(now_ns) for slot in slots),
            claims=sum(slot.claims for slot in slots),
            empty_claims=sum(slot.empty_claims for slot in slots),
            commits=sum(slot.commits for slot in slots),
            stale_commits=sum(slot.stale_commits for slot in slots),
            redis_ns=sum(slot.redis_ns for slot in slots),
        )
