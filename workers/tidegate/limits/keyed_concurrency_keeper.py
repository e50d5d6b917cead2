"""Holds one process's permits of every key of a keyed concurrency limit; the rules of one key are ConcurrencyKeeper's."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.limits.keeper import MS, NEWS_NS
from tidegate.limits.key_store import KEY_TTL_MS, PAGE, Ask
from tidegate.limits.keyed_keeper import NEVER_NS, KeyedKeeper, KeyShare
from tidegate.limits.port import SuppliedKeys
from tidegate.limits.store import LimitStore, Undeclared
from tidegate.model.limit import Limit

_KEEP_NS = 250 * MS  # permits that nothing waits for are kept this long, so that a short gap costs no request
_FIRST_RETRY_NS, _MOST_RETRY_NS, _CROWDED_RETRY_NS = 10 * MS, 100 * MS, 1000 * MS
_GIVE_BACK_NS = 20 * MS
_YIELD_NS = 100 * MS  # what others wait for is asked for again this long after it was last asked for
#: The server forgets a key that nobody asks for; what is held is asked for this often.
_TOUCH_NS = KEY_TTL_MS * MS // 4


@dataclass(slots=True)
class _Held(KeyShare):
    capacity: int = 0
    recorded: int = 0
    kept: int = 0
    kept_since_ns: int = 0
    asked_ns: int = 0
    touch_ns: int = NEVER_NS
    retry_ns: int = 0
    retry_after_ns: int = _FIRST_RETRY_NS


class KeyedConcurrencyKeeper(KeyedKeeper[_Held]):
    """Capacities go down here first and at the server after, up at the server first and here after.

    One lease covers all keys of the limit. When it ends here (half of it by our clock), every capacity falls to 0 and the
    process goes on under another holder's name: what the server still counts under the old one ends with the old lease,
    and can never come alive again.
    """

    def __init__(self, limit: Limit, host: SuppliedKeys, holder: str, store: LimitStore, *, lease_ms: int) -> None:
        super().__init__(limit, host, holder, store)
        self._lease_ms = lease_ms
        self._names = (holder if not number else f"{holder}~{number}" for number in itertools.count())
        self._name = next(self._names)
        self._sequence = 0
        self._place = 0
        self._ends_ns = 0
        self._hungry = 0
        self._limit = limit.concurrency or 1

    def expire(self, now_ns: int) -> int:
        if self._ends_ns and now_ns >= self._ends_ns:
            self._drop_all()
            now = time.monotonic_ns()
            for share in list(self.shares.values()):
                self._replan(share, now)
        return self._ends_ns

    def release(self) -> None:
        self._set_capacities([(share, 0) for share in self.shares.values()])
        self._hear()
        held = [share for share in self.shares.values() if share.recorded]
        for first in range(0, len(held), PAGE):
            self._call(held[first : first + PAGE], giving_up=True)

    def _new(self, key: int) -> _Held:
        return _Held(key)

    def _holds_any(self) -> bool:
        return self._ends_ns != 0 and bool(self.shares)

    def _plan(self, share: _Held, now_ns: int) -> int | None:
        need = min(share.in_use + share.waiting, self._limit)
        wanted = self._smooth(share, need, now_ns)
        more = wanted > share.capacity
        less = share.recorded > max(min(wanted, share.capacity), share.in_use)
        if more or less:
            return min(share.retry_ns, share.touch_ns)
        if not wanted and not share.recorded:
            return None
        relax = share.kept_since_ns + _KEEP_NS + 1 if wanted > need else NEVER_NS
        return min(relax, share.touch_ns)

    def _smooth(self, share: _Held, need: int, now_ns: int) -> int:
        if need >= share.kept or now_ns - share.kept_since_ns > _KEEP_NS:
            share.kept, share.kept_since_ns = need, now_ns
        return share.kept

    def _ask(self, shares: Sequence[_Held], now_ns: int) -> None:
        lower = [(share, self._wanted(share, now_ns)) for share in shares]
        if self._set_capacities([(share, wanted) for share, wanted in lower if wanted < share.capacity]):
            self._hear()  # what started until then is in use, and not to be given away
        self._introduce()
        self._call(shares)

    def _wanted(self, share: _Held, now_ns: int) -> int:
        return self._smooth(share, min(share.in_use + share.waiting, self._limit), now_ns)

    def _call(self, shares: Sequence[_Held], *, giving_up: bool = False) -> None:
        self._sequence += 1
        sent = self._asked_ns = time.monotonic_ns()
        # What may still start here counts as in use: the server takes nothing back before we have let go of it.
        asks = [
            Ask(share.key, 0 if giving_up else share.kept, in_use=max(share.capacity, share.in_use)) for share in shares
        ]
        answer = self.server.hold_keys(
            self._name, asks, sequence=self._sequence, lease_ms=self._lease_ms,
            pause_number=self._pause_number, place=self._place,
        )  # fmt: skip
        received = time.monotonic_ns()
        if isinstance(answer, Undeclared):
            self._drop_all()
            self._unknown(answer, received)
            return
        self._learn_news(answer, sent_ns=sent, received_ns=received)
        if not answer.fresh:
            return
        self._limit, self._place = answer.limit, answer.next_place
        self._news_ns = NEWS_NS if not self._place else _GIVE_BACK_NS
        self._ends_ns = sent + self._lease_ms * MS // 2
        changed = []
        for share, ask, (allowed, recorded) in zip(shares, asks, answer.answers, strict=True):
            share.recorded = recorded
            share.asked_ns = sent
            share.touch_ns = sent + _TOUCH_NS if recorded else NEVER_NS
            if allowed != share.capacity:
                changed.append((share, allowed))
            self._plan_retry(share, received, satisfied=allowed >= ask.want, giving_back=recorded > allowed)
        self._set_capacities(changed)
        self._look_at_wanted(answer.wanted, received)

    def _look_at_wanted(self, wanted: Sequence[int], now_ns: int) -> None:
        """Somebody waits for these: what we hold of them is asked for again, and we may have to give some of it up."""
        for key in wanted:
            share = self.shares.get(key)
            if share is not None and share.recorded and share.capacity:
                share.touch_ns = min(share.touch_ns, share.asked_ns + _YIELD_NS)
                self._replan(share, now_ns)

    def _plan_retry(self, share: _Held, now_ns: int, *, satisfied: bool, giving_back: bool) -> None:
        if giving_back:
            share.retry_ns = now_ns + _GIVE_BACK_NS
        elif satisfied:
            share.retry_ns, share.retry_after_ns = now_ns, _FIRST_RETRY_NS
        else:
            share.retry_ns = now_ns + self._jitter(share.retry_after_ns)
            # With thousands of keys waiting each is asked for more rarely, so that together they cost the same.
            most = min(_CROWDED_RETRY_NS, max(_MOST_RETRY_NS, len(self.shares) * MS // 4))
            share.retry_after_ns = min(share.retry_after_ns * 2, most)

    def _set_capacities(self, wanted: Sequence[tuple[_Held, int]]) -> bool:
        """Whether there was anything to set."""
        for share, permits in wanted:
            share.capacity = permits
        if wanted:
            self.keys.set_key_permits([(share.key, permits) for share, permits in wanted])
        return bool(wanted)

    def _drop_all(self) -> None:
        """The lease may have ended: nothing more starts, and what was held is void under this name."""
        self._set_capacities([(share, 0) for share in self.shares.values() if share.capacity])
        for share in self.shares.values():
            share.recorded, share.touch_ns, share.retry_ns = 0, NEVER_NS, 0
        self._ends_ns = self._place = self._sequence = 0
        self._name = next(self._names)
