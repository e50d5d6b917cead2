"""The chain of awaits of a suspended task: read when asked for, through every kind of awaitable."""

from __future__ import annotations

import asyncio
import types

import pytest


def names(driver, task):
    return [function.rsplit(".", 1)[-1] for _file, _line, function in driver.driver.stack(task)]


async def parked():
    await asyncio.Event().wait()


async def through_coroutines():
    await parked()


@types.coroutine
def through_a_generator():
    yield from parked().__await__()


async def through_generator():
    await through_a_generator()


async def numbers():
    await parked()
    yield 1


async def through_async_generator():
    async for _ in numbers():
        pass


async def through_async_generator_method():
    generator = numbers()
    await generator.asend(None)


async def through_a_task():
    await asyncio.create_task(parked())


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (parked, ["parked", "wait"]),
        (through_coroutines, ["through_coroutines", "parked", "wait"]),
        (through_generator, ["through_generator", "through_a_generator", "parked", "wait"]),
        (through_async_generator, ["through_async_generator", "numbers", "parked", "wait"]),
        (through_async_generator_method, ["through_async_generator_method", "numbers", "parked", "wait"]),
        (through_a_task, ["through_a_task", "parked", "wait"]),
    ],
)
def test_the_chain_is_followed_to_the_innermost_frame(main, recorder, start, expected):
    async def body():
        driver = recorder()
        _, task = driver.step(start(), 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert names(driver, task) == expected
        task.cancel()
        await driver.ended(1)

    main(body)


def test_files_and_lines_are_those_of_the_awaits(main, recorder):
    async def body():
        driver = recorder()
        _, task = driver.step(parked(), 1)
        file, line, function = driver.driver.stack(task)[0]
        assert (file, function) == (__file__, "parked")
        assert line == parked.__code__.co_firstlineno + 1
        task.cancel()
        await driver.ended(1)

    main(body)


def test_tasks_that_wait_for_each_other_do_not_hang_it(main, recorder):
    async def waits_for(other):
        await other[0]

    async def body():
        driver = recorder()
        first: list[object] = []
        second: list[object] = []
        first.append(driver.step(waits_for([asyncio.get_running_loop().create_future()]), 1)[1])
        second.append(driver.step(waits_for(first), 2)[1])
        assert names(driver, second[0]) == ["waits_for", "waits_for"]
        first[0].cancel()
        await driver.ended(2)

    main(body)


def test_only_tasks_of_the_driver_are_looked_into(main, recorder):
    async def body():
        with pytest.raises(TypeError, match="a task of this driver"):
            recorder().driver.stack(asyncio.current_task())

    main(body)
