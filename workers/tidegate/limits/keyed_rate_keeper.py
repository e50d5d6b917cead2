"""Keeps one process supplied with slots of every key of a keyed rate limit; the rules of one key are RateKeeper's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.errors import ExecutorFull
from tidegate.limits.keeper import NEWS_NS
from tidegate.limits.key_store import Ask, KeySlots
from tidegate.limits.keyed_keeper import KeyedKeeper, KeyShare
from tidegate.limits.plan import plan_rate
from tidegate.limits.port import SuppliedKeys
from tidegate.limits.rate_keeper import DRIFT_SHARE, FIRST_BLOCK_S, LEAD_NS, LEAST_BLOCK_S, MOST_BLOCK_S
from tidegate.limits.store import LimitStore, Undeclared
from tidegate.model.limit import Limit


@dataclass(slots=True)
class _Supplied(KeyShare):
    block: int = 1
    covered_ns: int = 0
    usable_ns: int = 0
    not_before_ns: int = 0
    last_used: int = 0
    last_granted: int = 0


class KeyedRateKeeper(KeyedKeeper[_Supplied]):
    """Slots of a key are leased while items wait for it, a little ahead of need; a key that nothing waits for costs nothing."""

    def __init__(self, limit: Limit, host: SuppliedKeys, holder: str, store: LimitStore) -> None:
        super().__init__(limit, host, holder, store)
        plan = plan_rate(limit.rate_per_s or 1.0, limit.burst_permits)
        rate = plan.rate_per_s
        self._least, self._most = max(1, int(rate * LEAST_BLOCK_S)), max(1, int(rate * MOST_BLOCK_S))
        self._first = min(self._most, max(1, int(rate * FIRST_BLOCK_S)))
        self._interval_ns = plan.interval_ns
        self._in_hand_until_ns = 0

    def release(self) -> None:
        """Nothing to do: what is in hand is a fraction of a second's worth, and passes unused."""

    def _new(self, key: int) -> _Supplied:
        return _Supplied(key, block=self._first)

    def _holds_any(self) -> bool:
        return time.monotonic_ns() < self._in_hand_until_ns

    def _missing(self, share: _Supplied, now_ns: int) -> int:
        return share.waiting - max(0, share.covered_ns - now_ns) // self._interval_ns

    def _plan(self, share: _Supplied, now_ns: int) -> int | None:
        if not share.waiting:
            return None if now_ns >= share.usable_ns else share.usable_ns
        if self._missing(share, now_ns) <= 0:
            return max(now_ns + 1, share.covered_ns - self._lead(share))
        return max(share.not_before_ns, share.covered_ns - self._lead(share))

    def _lead(self, share: _Supplied) -> int:
        return min(LEAD_NS, share.block * self._interval_ns // 2)

    def _ask(self, shares: Sequence[_Supplied], now_ns: int) -> None:
        self._introduce()
        asking = [share for share in shares if share.waiting]
        asks = [Ask(share.key, max(1, self._missing(share, now_ns)), ahead=share.block) for share in asking]
        sent = time.monotonic_ns()
        answer = self.server.lease_key_slots(asks, pause_number=self._pause_number)
        received = self._asked_ns = time.monotonic_ns()
        if isinstance(answer, Undeclared):
            self._unknown(answer, received)
            return
        self._learn_news(answer, sent_ns=sent, received_ns=received)
        self._interval_ns = answer.interval_ns
        for share, (granted, start_us, wait_us) in zip(asking, answer.answers, strict=True):
            share.not_before_ns = received + (self._jitter(wait_us * 1000) if wait_us else 0)
            self._fit_block(share)
            share.last_granted = granted
            if granted:
                self._offer(share, granted, start_us, answer)

    def _offer(self, share: _Supplied, granted: int, start_us: int, answer: KeySlots) -> None:
        # Never early, never late: the start by the latest that our clock may show then, the end by the earliest.
        start = self.offset.latest_ns(start_us)
        start += max(0, start - self._asked_ns) // DRIFT_SHARE
        allowed_ns = answer.tolerance_us * 1000 * (DRIFT_SHARE - 1) // DRIFT_SHARE
        tolerance = self.offset.earliest_ns(start_us) + allowed_ns - start
        share.covered_ns = start + granted * answer.interval_ns
        if tolerance > 0:
            share.usable_ns = share.covered_ns + tolerance
            self._in_hand_until_ns = max(self._in_hand_until_ns, share.usable_ns)
            try:
                self.keys.offer_key(share.key, start, answer.interval_ns, granted, tolerance)
            except ExecutorFull:  # four blocks lie unused: something else holds the items up, and slots pass
                share.not_before_ns = self._asked_ns + NEWS_NS

    def _fit_block(self, share: _Supplied) -> None:
        taken = share.used - share.last_used if share.used >= share.last_used else share.used
        share.last_used = share.used
        if share.last_granted:
            if taken * 5 >= share.last_granted * 2:
                share.block = min(self._most, share.block * 2)
            elif taken * 5 < share.last_granted:
                share.block = max(self._least, share.block // 2)
