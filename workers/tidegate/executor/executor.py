"""Executor: run many small things under control on one machine, with no Redis at all."""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from tidegate.errors import ConfigurationError, ExecutorClosed
from tidegate.executor import _native
from tidegate.executor.ccalls import AnyRun, CRun, part_of
from tidegate.executor.forks import renew_lock_in_children
from tidegate.executor.host import Host, Lane, Run
from tidegate.executor.kinds import CFunction, kind_of
from tidegate.executor.lanes import Breaker, HostLimit
from tidegate.executor.loops import call_soon
from tidegate.executor.memory import MemoryGuard, memory_limit_bytes
from tidegate.executor.nesting import Level, Places, awaiting, depth_in, innermost, waiting
from tidegate.executor.options import demand_function, demand_numbers, demand_parts
from tidegate.executor.origins import caller
from tidegate.executor.outcomes import CapturedFailure, ItemOutcome, KeepTraceback, Outcomes, Part, capture_error
from tidegate.executor.report import ExecutorReport, Totals
from tidegate.executor.streams import astream_of, stream_of
from tidegate.model.limit import Limit, parse_rate
from tidegate.model.limit_key import key_function
from tidegate.model.outcome import Outcome
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry

__all__ = ["Executor", "ItemOutcome", "Outcomes"]

#: Items of one run of ``map``: enough that a run costs nothing, few enough that arguments of finished ones are let go.
CHUNK = 50_000
#: A waiting thread looks at the memory guard this often.
LOOK_S = 0.1

Function = Callable[..., Any] | CFunction


class Executor:
    """Runs functions under a limit on how many at once, a rate, retries and timeouts.

    ``concurrency``: items at once, over everything that this executor runs. ``rate``: starts per second (``"50/s"``,
    ``"5000/h"`` or a number), with bursts of ``burst``. ``retry``: a :class:`Retry`; none by default. ``timeout``: seconds
    for one attempt; one that goes on nevertheless has as long again to clean up, and is then interrupted once more.
    ``hard_timeout``: seconds after which an item that cannot be interrupted ends the process.
    ``limits``: further :class:`Limit` bounds, keyed or not. ``breaker``: a :class:`Breaker` over everything, or per key.
    ``fallback``: called as ``fallback(item, error)`` for items that failed for good; its value takes their place.
    ``memory_limit``: bytes; above it garbage is collected and work pauses (default: 80 % of what the process may use).

    Sync functions run on threads, async functions on an event loop (the running one in ``arun``, ``amap`` and
    ``astream``), a :class:`CFunction` without the GIL on all cores. Use it from any thread and any loop. Items may run items
    here too: one that waits for others lends them its place.

    >>> with Executor(concurrency=4) as executor:
    ...     executor.map(str.upper, ["a", "b"]).values, executor.run(divmod, 7, 2)
    (['A', 'B'], (3, 1))
    """

    def __init__(
        self,
        concurrency: int = 100,
        *,
        rate: str | float | None = None,
        burst: int | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        hard_timeout: float | None = None,
        limits: Sequence[Limit] = (),
        breaker: Breaker | None = None,
        fallback: Callable[..., Any] | None = None,
        memory_limit: int | None = None,
        threads: int | None = None,
        slabs: bool = True,
        name: str = "executor",
    ) -> None:
        demand_numbers(concurrency=concurrency, threads=threads, burst=burst, memory_limit=memory_limit)
        demand_numbers(timeout=timeout, hard_timeout=hard_timeout)
        demand_parts(limits, breaker, fallback, burst)
        if memory_limit is not None and memory_limit < 1:
            raise ConfigurationError(f"memory_limit={memory_limit}", remedy="use bytes above 0, or None")
        self.policy = TaskPolicy(
            concurrency=concurrency,
            timeout=timeout,
            hard_timeout=hard_timeout,
            retry=retry if retry is not None else Retry(attempts=1),
            max_wait=31_557_600.0,
        )
        self.name = name
        self._fallback = fallback
        self._lanes: dict[tuple[int, bool, int], Lane] = {}
        self._known: tuple[object, int] = (self, 0)  # the last function: telling its kind costs as much as running many
        self._lock = threading.Lock()
        renew_lock_in_children(self)
        self._host = Host(threads=threads, max_items=100_000_000, name=name, slabs=slabs, capture=capture_error)
        self._limits, self._keys = self._make_limits(rate, burst, limits, breaker)
        mark = memory_limit if memory_limit is not None else int(memory_limit_bytes() * 0.8)
        self.memory = MemoryGuard(mark, self._host.pause, self._host.resume)
        self._totals = Totals()

    def _make_limits(
        self, rate: str | float | None, burst: int | None, limits: Sequence[Limit], breaker: Breaker | None
    ) -> tuple[tuple[HostLimit, ...], tuple[Callable[..., Any], ...]]:
        """Shared by all lanes, so that kinds of functions and loops do not multiply what is allowed. With key functions."""
        made = [self._host.limit("concurrency", concurrency=self.policy.concurrency)]
        self._places = Places(made[0], self.policy.concurrency)
        keys: list[Callable[..., Any]] = [key_function(one.name, one.key) for one in limits if one.key is not None]
        if rate is not None:
            per_s = parse_rate(rate)
            made.append(self._host.limit("rate", rate_per_s=per_s, burst=burst or max(1, int(per_s / 10))))
        for limit in limits:
            made.append(self._host.limit_of(limit))
            made[-1].pause_here()
        if breaker is not None:
            made.append(self._host.breaker("breaker", breaker))
            keys += [key_function("breaker", breaker.key)] if breaker.key is not None else []
        return tuple(made), tuple(keys)

    # ---- one call ----

    def run(self, function: Function, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``function(*args, **kwargs)`` under control; return its value or raise its error (after retries)."""
        if isinstance(function, CFunction):
            return self.map(function, [_only_argument(args, kwargs)])[0].unwrap()
        detail = self._fallback is not None
        run = self._start(function, [(args, kwargs)], shape=2, origin=KeepTraceback(caller()), detail=detail)
        self._wait(run)
        return self._only(run, function, args, kwargs, self._recover)

    async def arun(self, function: Function, /, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`run`, on the running loop for async functions, without blocking it for others."""
        if isinstance(function, CFunction):
            return (await self.amap(function, [_only_argument(args, kwargs)]))[0].unwrap()
        run = self._start(function, [(args, kwargs)], shape=2, origin=KeepTraceback(caller()), here=True)
        await self._finished(run)
        taken = run.take()
        if taken.ok_values:
            return taken.ok_values[0]
        return await self._arecover_one(taken.failures[0], args)

    def _only(self, run: Run, function: Function, args: Any, kwargs: Any, recover: Callable[..., None]) -> Any:
        taken = run.take()
        if taken.ok_values:
            return taken.ok_values[0]
        failure = taken.failures[0]
        if self._fallback is None:
            raise _raisable(failure)
        part = Part.of_run(0, 1, taken, run)
        recover([args[0] if len(args) == 1 else args], [part])
        return part.outcome(0).unwrap()

    async def _arecover_one(self, failure: Any, args: tuple[Any, ...]) -> Any:
        if self._fallback is None:
            raise _raisable(failure)
        item = args[0] if len(args) == 1 else args
        return await self.arun_plain(self._fallback, item, _raisable(failure))

    async def arun_plain(self, function: Callable[..., Any], *args: Any) -> Any:
        """One attempt of a function, without limits: how fallbacks run."""
        run = self._start(function, [args], shape=1, plain=True, origin=KeepTraceback(), here=True)
        await self._finished(run)
        taken = run.take()
        if taken.ok_values:
            return taken.ok_values[0]
        raise _raisable(taken.failures[0])

    # ---- many ----

    def map(self, function: Function, items: Iterable[Any]) -> Outcomes:
        """Apply ``function`` to every item. Never raises for what an item does: outcomes, in the order of the items."""
        values, origin = _sequence(items), caller()
        parts: list[Part] = []
        waiting: list[tuple[int, AnyRun, int]] = []
        try:
            for first, chunk in _chunks(function, values):
                waiting.append((first, self._begin(function, chunk, origin), len(chunk)))
                if len(waiting) > 2:  # one runs, one is ready: no gap between them, and no more in memory
                    parts.append(self._part(*waiting.pop(0)))
            parts.extend(self._part(*entry) for entry in waiting)
        except BaseException:  # Ctrl-C: nothing goes on behind the caller's back
            for _first, run, _n in waiting:
                run.cancel()
            raise
        self._recover(values, parts)
        return Outcomes(parts)

    def _part(self, first: int, run: AnyRun, n: int) -> Part:
        self._wait(run)
        return part_of(first, n, run)

    async def amap(self, function: Function, items: Iterable[Any] | AsyncIterable[Any]) -> Outcomes:
        """As :meth:`map`, on the running loop."""
        origin = caller()
        values = [item async for item in items] if isinstance(items, AsyncIterable) else _sequence(items)
        parts: list[Part] = []
        runs: list[tuple[int, AnyRun, int]] = []
        try:
            for first, chunk in _chunks(function, values):
                runs.append((first, self._begin(function, chunk, origin, here=True), len(chunk)))
                if len(runs) - len(parts) > 2:
                    parts.append(await self._apart(*runs[len(parts)]))
            while len(parts) < len(runs):
                parts.append(await self._apart(*runs[len(parts)]))
        except asyncio.CancelledError:
            for _first, run, _n in runs:
                run.cancel()
            raise
        await self._arecover(values, parts)
        return Outcomes(parts)

    async def _apart(self, first: int, run: AnyRun, n: int) -> Part:
        await self._finished(run)
        return part_of(first, n, run)

    def stream(
        self, function: Function, items: Iterable[Any], *, high_water: int = 1000, ordered: bool = True
    ) -> Iterator[ItemOutcome]:
        """Outcomes while the work goes on. At most ``high_water`` items are taken from ``items`` and not handed out yet, so
        memory is bounded however many there are. ``ordered``: in the order of the items, else as they end."""
        return stream_of(self, function, items, high_water=high_water, ordered=ordered)

    def astream(
        self,
        function: Function,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        high_water: int = 1000,
        ordered: bool = True,
    ) -> AsyncIterator[ItemOutcome]:
        """As :meth:`stream`, on the running loop, over an iterable or an async one."""
        return astream_of(self, function, items, high_water=high_water, ordered=ordered)

    # ---- fallback ----

    def _recover(self, values: Sequence[Any], parts: Sequence[Part]) -> None:
        """Run the fallback for what failed for good; its value takes the place of what failed."""
        if self._fallback is None or not any(part.failures for part in parts):
            return
        for part in parts:
            positions, pairs = failed_pairs(values, part)
            if not pairs:
                continue
            run = self._start(self._fallback, pairs, shape=1, plain=True)
            self._wait(run)
            keep_recovered(part, positions, run)

    async def _arecover(self, values: Sequence[Any], parts: Sequence[Part]) -> None:
        if self._fallback is None or not any(part.failures for part in parts):
            return
        for part in parts:
            positions, pairs = failed_pairs(values, part)
            if not pairs:
                continue
            run = self._start(self._fallback, pairs, shape=1, plain=True, here=True)
            await self._finished(run)
            keep_recovered(part, positions, run)

    # ---- inside ----

    def _start(
        self,
        function: Callable[..., Any],
        items: Sequence[Any],
        *,
        shape: int = 0,
        origin: str | None = None,
        detail: bool = False,
        here: bool = False,
        plain: bool = False,
    ) -> Run:
        self._totals.begin()
        try:
            outer = innermost()
            keeps_loop = not here and self._host.is_on_loop()
            level = Level(self._places, outer, holds=not plain, keeps_loop=keeps_loop)
            lane = self._lane_for(function, here=here, plain=plain, depth=level.depth)
            if level.keeps_loop and lane.kind == _native.KIND_COROUTINE:
                raise ConfigurationError(
                    "a coroutine of this executor waits, without await, for one that needs the same loop",
                    remedy="await arun, amap or astream in it instead of calling run, map or stream",
                )
            run = lane.start(
                items, shape=shape, origin=origin, function=function, detail=detail, context=level.context()
            )
        except BaseException:
            self._totals.end()
            raise

        def ended(_run: object) -> None:
            level.over = True
            self._totals.end()

        run.add_done_callback(ended)
        return run

    def _begin(self, function: Function, items: Sequence[Any], origin: str, *, here: bool = False) -> AnyRun:
        """A run of any kind of function, whose outcomes :func:`part_of` reads."""
        if not isinstance(function, CFunction):
            return self._start(function, items, origin=origin, detail=True, here=here)
        self._totals.begin()
        try:
            depth = depth_in(self._places, innermost())
            run = CRun(self._lane_for(function, depth=depth), function, items, origin)
        except BaseException:
            self._totals.end()
            raise
        run.add_done_callback(self._totals.ended)
        return run

    def _lane_for(self, function: Function, *, here: bool = False, plain: bool = False, depth: int = 0) -> Lane:
        known = self._known
        if known[0] is function:
            kind = known[1]
        else:
            demand_function(function)
            kind = kind_of(function)
        self._known = (function, kind)
        if here and kind == _native.KIND_COROUTINE:
            kind = self._host.attach_loop()
        lane = self._lanes.get((kind, plain, depth))
        if lane is not None:
            return lane
        with self._lock:
            if (kind, plain, depth) not in self._lanes:
                policy = TaskPolicy(concurrency=self.policy.concurrency) if plain else self.policy
                name = f"{self.name}-{kind}{'-fallback' if plain else ''}{f'-{depth}' if depth else ''}"
                limits, keys = ((), ()) if plain else (self._limits, self._keys)
                self._lanes[kind, plain, depth] = self._host.lane(
                    name, function, policy, limits=limits, keys=keys, kind=kind, priority=min(depth, 7)
                )
            return self._lanes[kind, plain, depth]

    def _wait(self, run: AnyRun) -> None:
        level = innermost()
        if level is None or run.done:
            self._wait_here(run)
            return
        with waiting(level):
            self._wait_here(run)

    def _wait_here(self, run: AnyRun) -> None:
        try:
            while not run.wait(LOOK_S):
                self._host.core.check()
                self.memory.check()
        except BaseException:
            run.cancel()  # Ctrl-C, or the timeout of the item that waits here
            raise
        finally:
            self.memory.release()

    async def _finished(self, run: AnyRun) -> None:
        if run.done:
            return
        level = innermost()
        if level is None:
            await self._finished_here(run)
            return
        async with awaiting(level):
            await self._finished_here(run)

    async def _finished_here(self, run: AnyRun) -> None:
        loop = asyncio.get_running_loop()
        thread = threading.get_ident()
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        def ended(_run: object) -> None:
            wake() if threading.get_ident() == thread else call_soon(loop, wake)

        run.add_done_callback(ended)
        looks: list[asyncio.TimerHandle] = []

        def look() -> None:
            self.memory.check()
            looks[:] = [loop.call_later(LOOK_S, look)]

        looks.append(loop.call_later(LOOK_S, look))
        try:
            await future
        except asyncio.CancelledError:
            run.cancel()
            raise
        finally:
            looks[0].cancel()
            self.memory.release()

    # ---- facts and the end ----

    def report(self) -> ExecutorReport:
        """What was done so far, how long it took, what went wrong, and what to change. Print it, or ``to_dict()``."""
        self._add_up()
        return self._totals.report(self.policy, self.memory, self._host.stats())

    def _add_up(self) -> None:
        for delta in self._host.snapshot():
            self._totals.add(delta)

    @property
    def host(self) -> Host:
        """The host inside, for the modules of this package and for tests."""
        return self._host

    def close(self, *, timeout_s: float | None = 30.0) -> bool:
        """Cancel what waits, let running sync items end, cancel coroutines; leave no thread, timer or task behind."""
        with suppress(ExecutorClosed):  # in a forked child
            self._add_up()  # closing lets go of the lanes, and the report is wanted after it too
        return self._host.close(timeout_s=timeout_s)

    async def aclose(self, *, timeout_s: float = 30.0) -> bool:
        """As :meth:`close`, from a coroutine: waits for this loop's items without blocking it."""
        ended = await self._host.detach_loop(timeout_s)
        return await asyncio.get_running_loop().run_in_executor(None, lambda: self.close(timeout_s=timeout_s)) and ended

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Executor:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()


def failed_pairs(values: Sequence[Any], part: Part) -> tuple[list[int], list[tuple[Any, BaseException]]]:
    """Positions of a part that failed, with what the fallback is called with."""
    positions = sorted(part.failures)
    return positions, [(values[part.first + position], part.outcome(position).error) for position in positions]  # type: ignore[misc]


def _chunks(function: Function, values: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
    """Where each run begins, and its items. A C function takes all at once: its arrays are not copied."""
    if isinstance(function, CFunction):
        yield 0, values
        return
    for first in range(0, len(values), CHUNK):
        yield first, (values[first : first + CHUNK] if len(values) > CHUNK else values)


def _sequence(items: Iterable[Any]) -> Sequence[Any]:
    return items if isinstance(items, list | tuple | array) else list(items)


def _only_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) != 1 or kwargs:
        raise ConfigurationError(
            f"a C function called with {len(args)} arguments and {len(kwargs)} names",
            remedy="give it exactly one value",
        )
    return args[0]


def keep_recovered(part: Part, positions: list[int], run: Run) -> None:
    """Note the values of fallbacks that succeeded."""
    taken = run.take()
    where = taken.ok_positions
    if where is None:
        where = list(range(taken.ok_first, taken.ok_first + len(taken.ok_values)))
    for place, value in zip(where, taken.ok_values, strict=True):
        part.recovered[positions[place]] = value


def _raisable(failure: Any) -> BaseException:
    from tidegate.executor.outcomes import error_of

    error = error_of(failure)
    if failure.outcome is Outcome.TIMED_OUT and not error.args and isinstance(failure, CapturedFailure):
        error.args = (failure.message,)
    return error
