"""Executor.stream and astream: outcomes while the work goes on, in bounded memory.

Items are submitted in small runs. Their size follows the work: one item for slow functions, so that each outcome is handed
out as it comes, and more while runs take less than a few milliseconds.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from tidegate.errors import ConfigurationError
from tidegate.executor.ccalls import AnyRun, part_of
from tidegate.executor.kinds import CFunction
from tidegate.executor.loops import call_soon
from tidegate.executor.nesting import Level, awaiting, innermost, waiting
from tidegate.executor.origins import caller
from tidegate.executor.outcomes import ItemOutcome, Part

if TYPE_CHECKING:
    from tidegate.executor.executor import Executor

#: What a run of a stream should last.
TARGET_S = 0.004


class Stretch:
    """How many items the next run takes: as many as run in about four milliseconds, at most an eighth of the mark."""

    def __init__(self, high_water: int) -> None:
        self._most = max(1, high_water // 8)
        self._mean_s = TARGET_S
        self.size = 1

    def learn(self, part: Part) -> None:
        """From how long the first item of a finished run took."""
        run_ns, _wait_ns, _attempts = part.times(0)
        self._mean_s += (run_ns / 1e9 - self._mean_s) / 2
        self.size = max(1, min(self._most, int(TARGET_S / max(self._mean_s, 1e-9))))


class Piece:
    """A run of a stream."""

    __slots__ = ("first", "items", "run")

    def __init__(self, first: int, items: list[Any], run: AnyRun) -> None:
        self.first = first
        self.items = items
        self.run = run

    def part(self) -> Part:
        return part_of(self.first, len(self.items), self.run)


class _Offset:
    """Items of a piece, addressed as the whole stream is."""

    __slots__ = ("_first", "_items")

    def __init__(self, piece: Piece) -> None:
        self._first = piece.first
        self._items = piece.items

    def __getitem__(self, index: int) -> Any:
        return self._items[index - self._first]


def stream_of(
    executor: Executor,
    function: Callable[..., Any] | CFunction,
    items: Iterable[Any],
    *,
    high_water: int,
    ordered: bool,
) -> Iterator[ItemOutcome]:
    """See :meth:`Executor.stream`."""
    _demand_high_water(high_water)
    return _stream(executor, function, iter(items), high_water, ordered, caller())


def _stream(
    executor: Executor,
    function: Callable[..., Any] | CFunction,
    source: Iterator[Any],
    high_water: int,
    ordered: bool,
    origin: str,
) -> Iterator[ItemOutcome]:
    stretch = Stretch(high_water)
    pieces: deque[Piece] = deque()
    ended: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    first = inside = 0
    more = True
    try:
        while more or pieces:
            while more and inside < high_water:
                batch, more = _pull(source, min(stretch.size, high_water - inside))
                if batch:
                    piece = Piece(first, batch, executor._begin(function, batch, origin))
                    first += len(batch)
                    inside += len(batch)
                    pieces.append(piece)
                    if not ordered:
                        piece.run.add_done_callback(lambda _run, piece=piece: ended.put(piece))  # type: ignore[misc]
                if pieces and (pieces[0].run.done if ordered else not ended.empty()):
                    break
            if not pieces:
                continue
            piece = pieces.popleft() if ordered else _next_ended(executor, ended, pieces)
            executor._wait(piece.run)
            part = piece.part()
            stretch.learn(part)
            executor._recover(_Offset(piece), [part])  # type: ignore[arg-type]
            for position in range(part.n):
                outcome = part.outcome(position)
                inside -= 1
                yield outcome
    finally:
        for piece in pieces:
            piece.run.cancel()


def _next_ended(executor: Executor, ended: queue.SimpleQueue[Piece], pieces: deque[Piece]) -> Piece:
    while True:
        try:
            piece = ended.get_nowait()
        except queue.Empty:
            level = innermost()
            with waiting(level) if level is not None else nullcontext():
                pieces[0].run.wait(0.005)  # settles, helps, and hears signals
            executor.memory.check()
            executor.host.core.check()
            continue
        pieces.remove(piece)
        return piece


def _pull(source: Iterator[Any], count: int) -> tuple[list[Any], bool]:
    """Up to ``count`` items, fewer when the source is slow; whether there may be more."""
    batch: list[Any] = []
    deadline = time.monotonic() + TARGET_S
    for item in source:
        batch.append(item)
        if len(batch) >= count or time.monotonic() > deadline:
            return batch, True
    return batch, False


# ---- on the running loop ----


def astream_of(
    executor: Executor,
    function: Callable[..., Any] | CFunction,
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    high_water: int,
    ordered: bool,
) -> AsyncIterator[ItemOutcome]:
    """See :meth:`Executor.astream`."""
    _demand_high_water(high_water)
    source = aiter(items) if isinstance(items, AsyncIterable) else _as_async(items)
    return _astream(executor, function, source, high_water, ordered, caller())


async def _as_async(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def _astream(
    executor: Executor,
    function: Callable[..., Any] | CFunction,
    source: AsyncIterator[Any],
    high_water: int,
    ordered: bool,
    origin: str,
) -> AsyncIterator[ItemOutcome]:
    """One task reads the source and starts runs, so that a slow source holds up no outcome."""
    stretch = Stretch(high_water)
    room = _Room(high_water)
    pieces: deque[Piece] = deque()
    changed = asyncio.Event()
    level = innermost()
    loop = asyncio.get_running_loop()
    state: dict[str, Any] = {"more": True, "error": None}
    waiting = asyncio.create_task(
        _feed(executor, function, source, stretch, room, pieces, changed, loop, state, origin)
    )
    try:
        while state["more"] or pieces:
            piece = next((one for one in pieces if one.run.done), None) if not ordered else None
            if ordered and pieces and pieces[0].run.done:
                piece = pieces[0]
            if piece is None:
                await _changed(changed, level)
                changed.clear()
                continue
            pieces.remove(piece)
            part = piece.part()
            stretch.learn(part)
            await executor._arecover(_Offset(piece), [part])  # type: ignore[arg-type]
            for position in range(part.n):
                room.give(1)
                yield part.outcome(position)
        if state["error"] is not None:
            raise state["error"]
    finally:
        waiting.cancel()
        for piece in pieces:
            piece.run.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _changed(changed: asyncio.Event, level: Level | None) -> None:
    if level is None:
        await changed.wait()
        return
    async with awaiting(level):
        await changed.wait()


async def _feed(
    executor: Executor,
    function: Callable[..., Any] | CFunction,
    source: AsyncIterator[Any],
    stretch: Stretch,
    room: _Room,
    pieces: deque[Piece],
    changed: asyncio.Event,
    loop: asyncio.AbstractEventLoop,
    state: dict[str, Any],
    origin: str,
) -> None:
    first = 0
    batch: list[Any] = []
    late: asyncio.TimerHandle | None = None

    def start() -> None:
        nonlocal first, batch, late
        if late is not None:
            late.cancel()
            late = None
        if not batch:
            return
        piece = Piece(first, batch, executor._begin(function, batch, origin, here=True))
        first += len(batch)
        batch = []
        pieces.append(piece)
        piece.run.add_done_callback(lambda _run: call_soon(loop, changed.set))

    try:
        async for item in source:
            batch.append(item)
            full = not room.take(1)
            if full or len(batch) >= stretch.size:
                start()
            elif late is None:
                late = loop.call_later(TARGET_S, start)  # the source may be slow: what is here does not wait for more
            if full:
                await room.wait()
        start()
    except Exception as error:  # noqa: BLE001 - the source's own error: raised where the stream is read, after its items
        state["error"] = error
        start()
    finally:
        if late is not None:
            late.cancel()
        state["more"] = False
        changed.set()


class _Room:
    """Items that may still be taken before the high-water mark."""

    def __init__(self, high_water: int) -> None:
        self._left = high_water
        self._event = asyncio.Event()

    def take(self, count: int) -> bool:
        """Whether there is room for more after these."""
        self._left -= count
        return self._left > 0

    def give(self, count: int) -> None:
        self._left += count
        if self._left > 0:
            self._event.set()

    async def wait(self) -> None:
        while self._left <= 0:
            self._event.clear()
            await self._event.wait()


def _demand_high_water(high_water: int) -> None:
    if high_water < 1:
        raise ConfigurationError(f"high_water={high_water}", remedy="use 1 or more items")
