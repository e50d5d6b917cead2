"""What the two keepers of keyed limits have in common: a line of keys by when they are due, one call for all that are."""

from __future__ import annotations

import heapq
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tidegate.limits.keeper import MS, NEWS_NS, Keeper
from tidegate.limits.key_store import PAGE, KeyStore, News
from tidegate.limits.port import SuppliedKeys
from tidegate.limits.store import LimitStore, Undeclared
from tidegate.model.limit import Limit

_NEWS_PAGE = 4096
#: The executor forgets idle keys a little with every new one; this often it is asked to forget all of them.
_TRIM_NS = 1000 * MS
NEVER_NS = 1 << 62


@dataclass(slots=True)
class KeyShare:
    """What this process knows of one key. ``due_ns``: when it wants to be looked at."""

    key: int
    waiting: int = 0
    in_use: int = 0
    used: int = 0
    due_ns: int = NEVER_NS


S = TypeVar("S", bound=KeyShare)


class KeyedKeeper(Keeper, Generic[S]):
    """A key is remembered while items wait for it, run under it, or the server counts something of it as ours.

    A step costs the keys that moved and those that are due, not those that are known. All that are due go in one call, at
    most ``PAGE`` of them; the others come first in the next.
    """

    def __init__(self, limit: Limit, host: SuppliedKeys, holder: str, store: LimitStore) -> None:
        super().__init__(limit, host, holder, store)
        self.keys = host
        self.server = KeyStore(store, limit.name)
        self.shares: dict[int, S] = {}
        self._line: list[tuple[int, int]] = []
        self._pause_number = 0
        self._asked_ns = 0
        self._stopped_until_ns = 0
        self._trim_ns = 0
        self._news_ns = NEWS_NS

    @abstractmethod
    def _new(self, key: int) -> S:
        """A key that was not known."""

    @abstractmethod
    def _plan(self, share: S, now_ns: int) -> int | None:
        """When to look at the key again; ``now_ns`` or before to have it asked for now, ``None`` to forget it."""

    @abstractmethod
    def _ask(self, shares: Sequence[S], now_ns: int) -> None:
        """One call to the server for these keys; may be none, to renew and to hear what is new."""

    @abstractmethod
    def _holds_any(self) -> bool:
        """Whether something is held or in hand, so that news has to be heard in time."""

    def step(self, now_ns: int) -> None:
        self._hear()
        due = self._take_due(now_ns) if now_ns >= self._stopped_until_ns else []
        if due or (self._holds_any() and now_ns - self._asked_ns >= self._news_ns):
            try:
                self._ask(due, now_ns)
            finally:
                # Whatever became of the call, every key is looked at again.
                now_ns = time.monotonic_ns()
                for share in due:
                    self._replan(share, now_ns)
        self._trim(now_ns)
        self.due_ns = self._next_look(now_ns, active=bool(self.shares))
        if self._line:
            self.due_ns = max(now_ns, self._stopped_until_ns, min(self.due_ns, self._line[0][0]))

    def pause_key(self, key: int, seconds: float) -> None:
        """Tell the cluster that nothing of this key may start for a while."""
        until_us, now_us = self.server.pause_key(key, seconds)
        if until_us > now_us:
            self.keys.pause_key_until(key, self.offset.latest_ns(until_us))

    def _hear(self) -> None:
        """Take in what changed in the executor, all of it."""
        while True:
            news = self.keys.take_news(_NEWS_PAGE)
            now = time.monotonic_ns()
            for key, waiting, in_use, used in news:
                share = self.shares.get(key)
                if share is None:
                    if not waiting and not in_use:
                        continue
                    share = self.shares[key] = self._new(key)
                share.waiting, share.in_use, share.used = waiting, in_use, used
                self._replan(share, now)
            if len(news) < _NEWS_PAGE:
                return

    def _replan(self, share: S, now_ns: int) -> None:
        due = self._plan(share, now_ns)
        if due is None:
            self.shares.pop(share.key, None)
            share.due_ns = NEVER_NS
        elif due != share.due_ns:
            share.due_ns = due
            if due < NEVER_NS:
                heapq.heappush(self._line, (due, share.key))
        if len(self._line) > 64 + 4 * len(self.shares):  # entries that were overtaken
            self._line = [(one.due_ns, one.key) for one in self.shares.values() if one.due_ns < NEVER_NS]
            heapq.heapify(self._line)

    def _take_due(self, now_ns: int) -> list[S]:
        taken: list[S] = []
        while self._line and self._line[0][0] <= now_ns and len(taken) < PAGE:
            due, key = heapq.heappop(self._line)
            share = self.shares.get(key)
            if share is not None and share.due_ns == due:
                share.due_ns = NEVER_NS
                taken.append(share)
        return taken

    def _learn_news(self, answer: News, *, sent_ns: int, received_ns: int) -> None:
        self.problem = ""
        self.offset.learn(sent_ns=sent_ns, received_ns=received_ns, server_us=answer.now_us)
        self._learn_pause(answer.paused_us, answer.now_us)
        self._pause_number = answer.pause_number
        for key, until_us in answer.pauses:
            over = until_us <= answer.now_us
            self.keys.pause_key_until(key, 0 if over else self.offset.latest_ns(until_us))

    def _unknown(self, answer: Undeclared, received_ns: int) -> None:
        self._pause_number = 0
        self._declare(answer)
        self._stopped_until_ns = received_ns + (NEWS_NS if answer.other_kind else 0)

    def _trim(self, now_ns: int) -> None:
        if self.shares:
            self._trim_ns = self._trim_ns or now_ns + _TRIM_NS
        if self._trim_ns and now_ns >= self._trim_ns:
            self.keys.forget_idle_keys()
            self._trim_ns = now_ns + _TRIM_NS if self.shares else 0
