"""Keeps one process supplied with slots of a rate limit: a block ahead of need, never more than it uses."""

from __future__ import annotations

import time

from tidegate.limits.keeper import MS, NEWS_NS, Keeper
from tidegate.limits.plan import plan_rate
from tidegate.limits.port import SuppliedLimit
from tidegate.limits.store import LimitStore, Slots, Undeclared, new_nonce
from tidegate.model.limit import Limit

LEAD_NS = 30 * MS  # ask this long before the slots in hand run out
FIRST_BLOCK_S, LEAST_BLOCK_S, MOST_BLOCK_S = 0.05, 0.02, 0.2
# Our clock and the server's drift apart between the answer and the use of a slot, by less than this share.
DRIFT_SHARE = 1000


class RateKeeper(Keeper):
    """Slots are leased for what waits. The block of future slots grows while they are used and shrinks when they pass
    unused, so that a slow process leaves the rate to the others."""

    def __init__(self, limit: Limit, host: SuppliedLimit, holder: str, store: LimitStore) -> None:
        super().__init__(limit, host, holder, store)
        self.host: SuppliedLimit = host
        rate = plan_rate(limit.rate_per_s or 1.0, limit.burst_permits).rate_per_s
        self._least, self._most = max(1, int(rate * LEAST_BLOCK_S)), max(1, int(rate * MOST_BLOCK_S))
        self._block = min(self._most, max(1, int(rate * FIRST_BLOCK_S)))
        self._interval_ns = 1
        self._covered_ns = 0  # our clock: end of the slots in hand
        self._usable_ns = 0  # our clock: when the last slot in hand is of no more use
        self._asked_ns = 0
        self._not_before_ns = 0
        self._used = 0
        self._last_granted = 0

    def step(self, now_ns: int) -> None:
        demand, used = self.host.demand(), self.host.used()
        look = self._next_look(now_ns, active=demand > 0 or used != self._used)
        missing = demand - max(0, self._covered_ns - now_ns) // self._interval_ns
        lead = min(LEAD_NS, self._block * self._interval_ns // 2)
        if missing > 0 and self._covered_ns - now_ns < lead:
            if now_ns >= self._not_before_ns:
                self._ask(missing, used)
            look = max(look, min(self._not_before_ns, now_ns + NEWS_NS))
        elif now_ns < self._usable_ns and now_ns - self._asked_ns > NEWS_NS:
            self._ask(0, used)
        self.due_ns = look

    def release(self) -> None:
        """Nothing to do: what is in hand is a fraction of a second's worth, and passes unused."""

    def _ask(self, want: int, used: int) -> None:
        self._introduce()
        sent = time.monotonic_ns()
        answer = self.store.lease_slots(self.limit.name, self.holder, nonce=new_nonce(), want=want, ahead=self._block)
        received = self._asked_ns = time.monotonic_ns()
        if isinstance(answer, Undeclared):
            self._declare(answer)
            self._not_before_ns = received + (NEWS_NS if answer.other_kind else 0)
            return
        self.problem = ""
        self.offset.learn(sent_ns=sent, received_ns=received, server_us=answer.now_us)
        self._learn_pause(answer.paused_us, answer.now_us)
        self._not_before_ns = received + answer.wait_us * 1000
        if want:
            self._fit_block(used)
        if answer.granted:
            self._offer(answer)

    def _offer(self, slots: Slots) -> None:
        self._interval_ns = slots.interval_ns
        # Never early, never late: the start by the latest that our clock may show then, the end by the earliest.
        start = self.offset.latest_ns(slots.start_us)
        start += max(0, start - self._asked_ns) // DRIFT_SHARE
        allowed_ns = slots.tolerance_us * 1000 * (DRIFT_SHARE - 1) // DRIFT_SHARE
        tolerance = self.offset.earliest_ns(slots.start_us) + allowed_ns - start
        self._covered_ns = start + slots.granted * slots.interval_ns
        self._last_granted = slots.granted
        if tolerance > 0:
            self._usable_ns = self._covered_ns + tolerance
            self.host.offer(start, slots.interval_ns, slots.granted, tolerance)

    def _fit_block(self, used: int) -> None:
        taken, self._used = used - self._used, used
        if self._last_granted:
            if taken * 5 >= self._last_granted * 2:
                self._block = min(self._most, self._block * 2)
            elif taken * 5 < self._last_granted:
                self._block = max(self._least, self._block // 2)
