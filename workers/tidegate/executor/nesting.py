"""Items that run items: how deep they are, and the places they lend while they wait.

An item that waits for items of an executor works on nothing itself, so its place is lent: the concurrency counts items that
work. When its wait is over it takes its place back before it goes on.

Why this cannot hang: an item only waits for items one level deeper; each level has a lane of its own, deeper ones first; and
of the places that nobody waits in there are always as many as the concurrency says.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING

from tidegate.errors import ConfigurationError
from tidegate.executor import _native
from tidegate.executor.forks import renew_lock_in_children

if TYPE_CHECKING:
    from tidegate.executor.lanes import HostLimit

#: Levels of items inside items; each level of sync items that wait holds a thread.
MAX_DEPTH = 100
#: An item whose place is still taken looks again this often.
LOOK_S = 0.001

_innermost: ContextVar[Level | None] = ContextVar("tidegate_level", default=None)


class Places:
    """The places of one executor: as many as its concurrency says, and one for each item that waits. Any thread."""

    def __init__(self, limit: HostLimit, concurrency: int) -> None:
        self._limit = limit
        self._concurrency = concurrency
        self._waiting = 0
        self._going_on = 0
        self._lock = threading.Lock()
        renew_lock_in_children(self)

    def lend(self, waits: dict[int, int], item: int) -> None:
        """``item`` begins to wait; ``waits`` says how often the items of its run do."""
        with self._lock:
            waits[item] = waits.get(item, 0) + 1
            if waits[item] == 1:
                self._change(1)

    def ask_back(self, waits: dict[int, int], item: int) -> bool:
        """A wait of ``item`` is over. True: its last, and it goes on when :meth:`take_back` says so."""
        with self._lock:
            waits[item] -= 1
            if waits[item]:
                return False
            del waits[item]
            self._change(-1)  # nothing starts in its place from here on
            self._going_on += 1
            return True

    def take_back(self, *, at_once: bool = False) -> bool:
        """Whether there is a place again for one that goes on. ``at_once``: whether there is or not."""
        with self._lock:
            working = self._limit.in_use() - self._waiting - self._going_on
            if at_once or working < self._concurrency:
                self._going_on -= 1
                return True
            return False

    def _change(self, by: int) -> None:
        self._waiting += by
        self._limit.set_capacity(self._concurrency + self._waiting)


class Level:
    """What the items of one run have in common: whose places they hold, how deep they are, and which of them wait."""

    __slots__ = ("_holds", "depth", "keeps_loop", "outer", "over", "places", "waits")

    def __init__(self, places: Places, outer: Level | None, *, holds: bool, keeps_loop: bool) -> None:
        """``holds``: its items hold a place. ``keeps_loop``: the executor's own loop stands still until they end."""
        self.places = places
        self.outer = outer
        self.depth = depth_in(places, outer)
        self.keeps_loop: bool = keeps_loop or (outer is not None and outer.keeps_loop)
        self.over = False
        self.waits: dict[int, int] = {}
        self._holds = holds
        if self.depth > MAX_DEPTH:
            raise ConfigurationError(
                f"items inside items, {MAX_DEPTH} levels deep", remedy="let items return what is to be run next"
            )

    def context(self) -> Context:
        """The caller's context, for items of this level."""
        context = copy_context()
        context.run(_innermost.set, self)
        return context

    def lend(self) -> int | None:
        """The item that runs here waits from now on; its index, or ``None`` when it has no place to lend."""
        found = _native.current()
        if found is None or not self._holds:
            return None
        self.places.lend(self.waits, found[1])
        return found[1]


def depth_in(places: Places, level: Level | None) -> int:
    """How many items of that executor the caller is inside of."""
    while level is not None:
        if level.places is places:
            return level.depth + 1
        level = level.outer
    return 0


def innermost() -> Level | None:
    """The level that the caller's item belongs to; ``None`` outside of items, and in what an item left behind."""
    level = _innermost.get()
    while level is not None and level.over:
        level = level.outer
    return level


@contextmanager
def waiting(level: Level) -> Iterator[None]:
    """The item of that level that runs here waits in this block, and its place is lent."""
    item = level.lend()
    try:
        yield
    except BaseException:
        if item is not None and level.places.ask_back(level.waits, item):
            level.places.take_back(at_once=True)  # it is about to end
        raise
    if item is None or not level.places.ask_back(level.waits, item):
        return
    standing_still = _on_a_loop()  # others on this loop cannot leave their places before this one goes on
    try:
        while not level.places.take_back(at_once=standing_still):
            time.sleep(LOOK_S)
    except BaseException:
        level.places.take_back(at_once=True)
        raise


@asynccontextmanager
async def awaiting(level: Level) -> AsyncIterator[None]:
    """As :func:`waiting`, for a coroutine."""
    item = level.lend()
    try:
        yield
    except BaseException:
        if item is not None and level.places.ask_back(level.waits, item):
            level.places.take_back(at_once=True)
        raise
    if item is None or not level.places.ask_back(level.waits, item):
        return
    try:
        while not level.places.take_back():
            await asyncio.sleep(LOOK_S)
    except BaseException:
        level.places.take_back(at_once=True)
        raise


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
