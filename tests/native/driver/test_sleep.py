"""tidegate.executor.sleep: asyncio.sleep to whoever awaits it, without a future, a handle and a timer for each sleeper."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tidegate.executor import _native, sleep

LONG_S = 3600.0  # nobody waits for it
descriptors = Path("/proc/self/fd")


async def times(delay_s: float, result: Any = None) -> tuple[float, Any]:
    began = time.monotonic()
    value = await sleep(delay_s, result)
    return time.monotonic() - began, value


def timers_open() -> int:
    gc.collect()  # what earlier drivers left: they and who records their ends hold each other
    return sum("timerfd" in str(path.readlink()) for path in descriptors.iterdir() if path.is_symlink())


def test_nobody_wakes_before_the_time_and_everybody_gets_the_result(main, recorder):
    async def body():
        driver = recorder()
        delays = [random.Random(1).uniform(0.0001, 0.05) for _ in range(500)]
        for token, delay_s in enumerate(delays):
            assert driver.step(times(delay_s, token), token)[0] == "suspended"
        assert driver.driver.sleepers == 500
        ended = await driver.ended(500)
        assert driver.driver.sleepers == 0
        for token, delay_s in enumerate(delays):
            (took_s, value), raised = ended[token]
            assert (value, raised) == (token, False)
            assert took_s >= delay_s

    main(body)


def test_sleepers_wake_in_the_order_of_their_times_whoever_is_cancelled_meanwhile(main, recorder):
    """Against a sorted list: the heap keeps its order when sleepers leave from its middle."""

    async def body():
        driver, luck, woken, tasks, due = recorder(), random.Random(7), [], {}, {}

        async def one(token: int, delay_s: float) -> None:
            await sleep(delay_s)
            woken.append(token)

        for token in range(400):
            delay_s = luck.choice([0.2, 0.25, 0.3]) + luck.uniform(0, 0.04)
            before = time.monotonic()
            tasks[token] = driver.step(one(token, delay_s), token)[1]
            due[token] = (before + delay_s, time.monotonic() + delay_s)
        for token in luck.sample(range(400), 250):
            assert tasks.pop(token).cancel()
        assert driver.driver.sleepers == 150
        await driver.ended(400)
        assert sorted(woken) == sorted(tasks)
        for earlier, later in itertools.pairwise(woken):
            assert due[earlier][0] <= due[later][1], "its time came later"

    main(body)


def test_sleepers_of_one_moment_wake_in_the_order_they_fell_asleep(main, recorder):
    async def body():
        driver, woken = recorder(), []

        async def one(token: int) -> None:
            await sleep(1e-9)
            woken.append(token)

        for token in range(100):
            driver.step(one(token), token)
        await driver.ended(100)
        assert woken == list(range(100))

    main(body)


def test_cancelled_it_raises_with_the_message_and_leaves_the_line(main, recorder):
    async def body():
        driver = recorder()
        _, task = driver.step(times(LONG_S), 1)
        assert task.cancel("enough")
        assert driver.driver.sleepers == 0
        assert not task.done(), "as asyncio: in the next turn"
        (error, raised) = (await driver.ended(1))[1]
        assert raised
        assert isinstance(error, asyncio.CancelledError)
        assert error.args == ("enough",)
        assert task.cancelled()

    main(body)


def test_cancelled_twice_before_it_wakes_it_is_cancelled_once(main, recorder):
    async def body():
        driver, caught = recorder(), []

        async def stubborn() -> str:
            try:
                await sleep(LONG_S)
            except asyncio.CancelledError as error:
                caught.append(error.args)
            await sleep(0.001)
            return "awake"

        _, task = driver.step(stubborn(), 1)
        task.cancel("one")
        task.cancel("two")
        assert task.cancelling() == 2
        assert await driver.ended(1) == {1: ("awake", False)}
        assert caught == [("two",)]

    main(body)


def test_who_is_cancelled_before_falling_asleep_does_not_sleep(main, recorder):
    async def body():
        async def cancels_itself() -> None:
            asyncio.current_task().cancel()
            await sleep(LONG_S)

        error, raised = await recorder().outcome(cancels_itself())
        assert raised
        assert isinstance(error, asyncio.CancelledError)

    main(body)


def test_timeouts_task_groups_and_wait_for_go_through_it(main, recorder):
    async def body():
        async def under_a_timeout() -> str:
            try:
                async with asyncio.timeout(0.01):
                    await sleep(LONG_S)
            except TimeoutError:
                return "timed out"
            return "slept"

        async def waited_for() -> str:
            try:
                await asyncio.wait_for(sleep(LONG_S), 0.01)
            except TimeoutError:
                return "timed out"
            return "slept"

        async def in_a_group() -> list[int]:
            async with asyncio.TaskGroup() as group:
                children = [group.create_task(sleep(0.001 * n, n)) for n in range(5)]
            return [child.result() for child in children]

        driver = recorder()
        assert await driver.outcome(under_a_timeout()) == ("timed out", False)
        assert await driver.outcome(waited_for()) == ("timed out", False)
        assert await driver.outcome(in_a_group()) == ([0, 1, 2, 3, 4], False)
        assert driver.driver.sleepers == 0

    main(body)


def test_in_a_gather_all_sleep_at_once(main):
    async def body():
        began = time.monotonic()
        assert await _native.gather(*[sleep(0.05, n) for n in range(200)]) == list(range(200))
        assert time.monotonic() - began < 200 * 0.05 / 2

    main(body)


def test_outside_of_items_it_is_that_of_asyncio(main, recorder):
    async def body():
        driver = recorder()
        assert await asyncio.ensure_future(sleep(0.001, "plain")) == "plain"
        other = asyncio.ensure_future(sleep(LONG_S))
        await asyncio.sleep(0)
        assert driver.driver.sleepers == 0
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
        assert await _native.ItemTask(sleep(0.001, "made by hand")) == "made by hand"

    main(body)


@pytest.mark.parametrize("delay_s", [0, 0.0, -1, float("-inf")])
def test_no_delay_lets_others_run_once(main, recorder, delay_s):
    async def body():
        driver, seen = recorder(), []

        async def one(token: int) -> None:
            seen.append(token)
            await sleep(delay_s)
            seen.append(token)

        driver.step(one(1), 1)
        driver.step(one(2), 2)
        assert driver.driver.sleepers == 0
        await driver.ended(2)
        assert seen == [1, 2, 1, 2]

    main(body)


def test_a_delay_that_is_not_a_number_is_refused_and_an_endless_one_can_be_cancelled(main, recorder):
    async def body():
        driver = recorder()
        error, raised = await driver.outcome(sleep(float("nan")))
        assert raised
        assert isinstance(error, ValueError)
        error, raised = await driver.outcome(sleep("soon"))  # type: ignore[arg-type]
        assert raised
        assert isinstance(error, TypeError)
        _, task = driver.step(sleep(float("inf")), 5)
        assert driver.driver.sleepers == 1
        task.cancel()
        await driver.ended(1)

    main(body)


def test_what_an_item_began_to_await_cannot_wake_another_kind_of_task(main, recorder):
    async def body():
        class Passes:
            """Hands on, from one task, what another's await yields."""

            def __init__(self, iterator: Any) -> None:
                self.iterator = iterator

            def __await__(self) -> Any:
                return self.iterator

        async def begins() -> Any:
            return _native.Nap(LONG_S).__await__()

        async def goes_on(iterator: Any) -> None:
            await Passes(iterator)

        iterator, _ = await recorder().outcome(begins())
        for kind in (asyncio.Task, _native.ItemTask):
            with pytest.raises(RuntimeError, match=r"bad yield|to a task that is none"):
                await kind(goes_on(iterator))
            iterator, _ = await recorder().outcome(begins())

    main(body)


@pytest.mark.skipif(sys.platform != "linux", reason="it is a timerfd")
def test_one_file_serves_all_and_goes_with_the_last_driver(main, recorder):
    async def body():
        before = timers_open()
        driver = recorder()
        for token in range(1000):
            driver.step(sleep(0.01), token)
        assert timers_open() == before + 1
        await driver.ended(1000)
        del driver
        assert timers_open() == before
        await _native.gather(sleep(0.001), sleep(0.002))  # no driver at all: it goes with the last sleeper
        assert timers_open() == before

    main(body)


@pytest.mark.skipif(sys.platform != "linux", reason="it is a timerfd")
def test_a_loop_may_close_while_some_sleep(main, recorder):
    kept = []
    before = timers_open()

    async def body():
        driver = recorder()
        task = driver.step(sleep(LONG_S))[1]
        task._log_destroy_pending = False
        kept.append(driver)

    main(body)
    kept.clear()
    assert timers_open() <= before + 1  # what is closed with the loop, or with its side when the collector comes


def test_a_loop_that_watches_no_files_uses_its_timers(recorder):
    class NoFiles(asyncio.SelectorEventLoop):
        def add_reader(self, *_: Any) -> None:
            raise NotImplementedError

    async def body():
        driver, delays = recorder(), [0.03, 0.001, 0.02]
        for token, delay_s in enumerate(delays):
            driver.step(times(delay_s, token), token)
        ended = await driver.ended(3)
        assert list(ended) == [1, 2, 0]
        for token, delay_s in enumerate(delays):
            assert ended[token][0][0] >= delay_s

    with asyncio.Runner(loop_factory=NoFiles) as runner:
        runner.run(asyncio.wait_for(body(), 60))
