"""Items that run items of the same executor: they never wait for a place that they hold themselves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tidegate.errors import ConfigurationError
from tidegate.executor.executor import Executor
from tidegate.executor.kinds import CFunction
from tidegate.executor.nesting import MAX_DEPTH

from .conftest import PATIENCE_S

Make = Callable[..., Executor]


class Working:
    """How many work at once, and the most there were. ``full``: as many as are expected were there once."""

    def __init__(self, expected: int) -> None:
        self._lock = threading.Lock()
        self._expected = expected
        self.now = self.most = 0
        self.full = threading.Event()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now == self._expected:
                self.full.set()

    def __exit__(self, *_exc: object) -> None:
        with self._lock:
            self.now -= 1


def ending(call: Callable[[], Any]) -> Any:
    """What ``call`` returns; fails instead of hanging when it never does."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "it waits for ever"
    return found[0]


@pytest.mark.parametrize("options", [{}, {"threads": 1}], ids=["threads as needed", "one thread"])
@pytest.mark.parametrize("how", ["run", "map", "stream", "unordered stream"])
def test_sync_items_wait_for_sync_items_three_levels_deep(executors: Make, how: str, options: dict[str, int]) -> None:
    executor = executors(1, **options)

    def level(depth: int) -> int:
        if depth == 0:
            return 1
        if how == "run":
            return sum(executor.run(level, depth - 1) for _ in range(2))
        if how == "map":
            return sum(executor.map(level, [depth - 1] * 2).values)
        stream = executor.stream(level, [depth - 1] * 2, ordered=how == "stream")
        return sum(outcome.unwrap() for outcome in stream)

    assert ending(lambda: executor.map(level, [3, 3]).values) == [8, 8]
    assert ending(lambda: executor.run(level, 3)) == 8


@pytest.mark.parametrize("how", ["arun", "amap", "astream"])
def test_coroutines_wait_for_coroutines_three_levels_deep(executors: Make, how: str) -> None:
    executor = executors(1)

    async def level(depth: int) -> int:
        await asyncio.sleep(0)
        if depth == 0:
            return 1
        if how == "arun":
            return sum(await asyncio.gather(*(executor.arun(level, depth - 1) for _ in range(2))))
        if how == "amap":
            return sum((await executor.amap(level, [depth - 1] * 2)).values)
        return sum([outcome.unwrap() async for outcome in executor.astream(level, [depth - 1] * 2)])

    async def on_a_loop_of_ours() -> list[int]:
        return (await executor.amap(level, [3, 3])).values

    assert ending(lambda: asyncio.run(on_a_loop_of_ours())) == [8, 8]
    assert ending(lambda: executor.map(level, [3, 3]).values) == [8, 8]  # on the executor's own


def test_kinds_may_be_mixed(executors: Make) -> None:
    executor = executors(1)

    def innermost(value: int) -> int:
        return value + 1

    async def middle(value: int) -> int:
        return int(await executor.arun(innermost, value)) * 2

    def outermost(value: int) -> int:
        return int(executor.run(middle, value))

    assert ending(lambda: executor.map(outermost, [1, 2, 3]).values) == [4, 6, 8]


def test_c_functions_run_inside_items(executors: Make) -> None:
    import ctypes.util

    executor = executors(1)
    sqrt = CFunction.of(ctypes.CDLL(ctypes.util.find_library("m")).sqrt)
    roots = ending(lambda: executor.run(lambda: list(executor.map(sqrt, [4.0, 9.0]).values)))
    assert roots == [2.0, 3.0]


def test_two_executors_may_call_each_other(executors: Make) -> None:
    first, second = executors(1, threads=1), executors(1, threads=1)

    def there(depth: int) -> int:
        return 1 if depth == 0 else int(second.run(back, depth))

    def back(depth: int) -> int:
        return int(first.run(there, depth - 1)) + 1

    assert ending(lambda: first.run(there, 3)) == 4


@pytest.mark.parametrize("asynchronous", [False, True])
def test_no_more_work_at_once_than_the_concurrency_says(executors: Make, asynchronous: bool) -> None:
    """Those that wait do not count, and one whose wait is over takes its place back before it goes on."""
    executor = executors(3)
    working = Working(3)

    def leaf(_: int) -> None:
        with working:
            working.full.wait(PATIENCE_S)
            threading.Event().wait(0.001)

    def parent(_: int) -> None:
        leaf(0)
        executor.map(leaf, range(3))
        leaf(0)

    async def aleaf(_: int) -> None:
        with working:
            while not working.full.is_set():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)

    async def aparent(_: int) -> None:
        await aleaf(0)
        await executor.amap(aleaf, range(3))
        await aleaf(0)

    outcomes = ending(lambda: executor.map(aparent if asynchronous else parent, range(20)))
    assert outcomes.succeeded == 20
    assert working.most == 3


def test_one_item_that_runs_many_has_all_places_for_them(executors: Make) -> None:
    executor = executors(4)
    together = threading.Barrier(4)  # breaks, and fails its items, unless all four run at once

    def leaf(_: int) -> None:
        together.wait(PATIENCE_S)

    assert ending(lambda: executor.run(lambda: executor.map(leaf, range(4)).succeeded)) == 4


def test_places_come_back_after_errors_and_cancelled_waits(executors: Make) -> None:
    def fails() -> None:
        raise ValueError("inside")

    async def for_ever() -> None:
        await asyncio.sleep(3600)

    async def outer() -> None:
        await executor.arun(for_ever)

    def parent() -> None:
        executor.run(fails)

    executor = executors(1)
    with pytest.raises(Exception, match="inside"):
        executor.run(parent)
    assert (executor._places._waiting, executor._places._going_on) == (0, 0)
    assert executor.run(lambda: 1) == 1

    executor = executors(1, timeout=1.0)
    with pytest.raises(Exception, match=r"1\.0|time"):
        executor.run(outer)
    assert (executor._places._waiting, executor._places._going_on) == (0, 0)
    assert executor.run(lambda: 1) == 1


def test_what_an_item_left_behind_lends_nothing(executors: Make) -> None:
    """A task that outlives its item holds no place, so it has none to lend."""
    executor = executors(1)

    async def late(ended: asyncio.Event) -> int:
        await ended.wait()
        return int(await executor.arun(lambda: executor._places._waiting))

    async def main() -> int:
        ended = asyncio.Event()

        async def item() -> asyncio.Task[int]:
            return asyncio.get_running_loop().create_task(late(ended))

        task = await executor.arun(item)
        ended.set()
        return int(await task)

    assert ending(lambda: asyncio.run(main())) == 0


def test_a_coroutine_that_would_wait_for_its_own_loop_is_told(executors: Make) -> None:
    executor = executors(4)

    async def leaf() -> int:
        return 1

    async def direct() -> int:
        return int(executor.run(leaf))

    async def through_a_thread() -> int:
        return int(executor.run(lambda: executor.run(leaf)))

    for function in (direct, through_a_thread):
        with pytest.raises(ConfigurationError, match=r"await arun, amap or astream"):
            ending(lambda function=function: executor.map(function_of(function), [0]))[0].unwrap()  # type: ignore[misc]


def function_of(coroutine: Callable[[], Any]) -> Callable[[int], Any]:
    async def call(_: int) -> Any:
        return await coroutine()

    return call


def test_endless_nesting_ends_with_an_error(executors: Make) -> None:
    executor = executors(1)

    def deeper(depth: int) -> int:
        return int(executor.run(deeper, depth + 1))

    with pytest.raises(ConfigurationError, match=f"{MAX_DEPTH} levels deep"):
        _raise(ending(lambda: executor.map(deeper, [0])[0]))


def _raise(outcome: Any) -> None:
    outcome.unwrap()
