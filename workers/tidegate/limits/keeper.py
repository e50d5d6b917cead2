"""What the two kinds of keepers have in common: a keeper holds one process's share of one limit and asks for more."""

from __future__ import annotations

import logging
import random
from abc import ABC, abstractmethod

from tidegate.limits.clock_offset import ClockOffset
from tidegate.limits.port import Pausable
from tidegate.limits.store import LimitStore, Undeclared, new_nonce
from tidegate.model.limit import Limit

log = logging.getLogger("tidegate.limits")

MS = 1_000_000
#: How often demand is looked at: while there is some, and at most when there was none for long.
ACTIVE_POLL_NS = 4 * MS
SOON_POLL_NS = MS // 2
IDLE_POLL_NS = 50 * MS
#: A process that uses a limit asks at least this often, so that it learns of a pause and of others who wait.
NEWS_NS = 500 * MS
_QUIET_NS = 1000 * MS


class Keeper(ABC):
    """Base of both. ``due_ns``: when ``step`` wants to be called; ``problem``: why nothing is granted, or empty."""

    def __init__(self, limit: Limit, host: Pausable, holder: str, store: LimitStore) -> None:
        self.limit = limit
        self.host = host
        self.holder = holder
        self.store = store
        self.offset = ClockOffset()
        self.due_ns = 0
        self.problem = ""
        self._version = 0
        self._active_ns = 0
        self._poll_ns = ACTIVE_POLL_NS
        self._paused = False
        self._random = random.Random(holder)

    @abstractmethod
    def step(self, now_ns: int) -> None:
        """Ask for what is needed, and set ``due_ns``. Raises what the client raises."""

    def expire(self, now_ns: int) -> int:
        """Drop what may be held no longer; returns when that is due next (0: never)."""
        return 0

    @abstractmethod
    def release(self) -> None:
        """Give back what can be given back; the process stops using the limit."""

    def pause(self, seconds: float, now_ns: int) -> None:
        """Tell the cluster that nothing may start under this limit for a while."""
        paused_us, server_us = self.store.pause(self.limit.name, seconds, nonce=new_nonce())
        self._learn_pause(paused_us, server_us)

    def _introduce(self) -> None:
        """Declare the limit before the first request: the process that came last decides what it is."""
        if not self._version:
            self._version = self.store.declare(self.limit, version=0)

    def _declare(self, answer: Undeclared) -> None:
        if answer.other_kind:
            self.problem = f"limit {self.limit.name!r} was declared as another kind by newer code"
            log.warning("%s: nothing starts under it here; restart this worker", self.problem)
        else:
            self._version = self.store.declare(self.limit, version=self._version)

    def _learn_pause(self, paused_us: int, server_us: int) -> None:
        if paused_us > server_us:
            self.host.pause_until(self.offset.latest_ns(paused_us))
            self._paused = True
        elif self._paused:
            self._paused = False
            if paused_us < server_us - NEWS_NS // 1000:  # it is over for long, or was ended by hand
                self.host.pause_until(0)

    def look_soon(self) -> None:
        """There may be demand: look in the next turn, and soon again, for items reach their limit a moment after they came."""
        self._poll_ns = 0
        self.due_ns = 0

    def _next_look(self, now_ns: int, *, active: bool) -> int:
        """When to look at demand again: soon while there is work, ever more rarely when there is none."""
        if active:
            self._active_ns = now_ns
        if not active and self._poll_ns < ACTIVE_POLL_NS:
            self._poll_ns = min(self._poll_ns * 2 or SOON_POLL_NS, ACTIVE_POLL_NS)
        elif now_ns - self._active_ns < _QUIET_NS:
            self._poll_ns = ACTIVE_POLL_NS
        else:
            self._poll_ns = min(self._poll_ns * 3 // 2, IDLE_POLL_NS)
        return now_ns + self._poll_ns

    def _jitter(self, duration_ns: int) -> int:
        return round(duration_ns * self._random.uniform(0.75, 1.25))
