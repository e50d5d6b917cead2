"""A coroutine that suspends is an asyncio.Task in everything that can be asked of one."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
from typing import Any

import pytest

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def tick(value: Any = None, turns: int = 1) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


def test_it_is_reported_once_with_its_value(main, recorder):
    async def body():
        driver = recorder()
        how, task = driver.step(tick("done", 3), token=41)
        assert how == "suspended"
        assert isinstance(task, asyncio.Task)
        assert asyncio.isfuture(task)
        assert task in asyncio.all_tasks()
        assert await driver.ended(1) == {41: ("done", False)}
        assert task.done()
        assert task.result() == "done"

    main(body)


def test_a_kept_task_can_be_awaited_by_others(main, recorder):
    async def body():
        driver = recorder()
        _, task = driver.step(tick("shared", 2))
        waiters = [asyncio.ensure_future(asyncio.shield(task)), asyncio.ensure_future(asyncio.wait_for(task, 10))]
        assert await asyncio.gather(*waiters) == ["shared", "shared"]

    main(body)


def test_a_failure_is_reported_with_its_traceback_and_not_as_lost(main, recorder):
    async def fails():
        await asyncio.sleep(0)
        raise LookupError("later")

    async def body():
        error, raised = await recorder().outcome(fails())
        assert raised
        assert repr(error) == "LookupError('later')"
        assert error.__traceback__.tb_frame.f_code.co_name == "fails"
        gc.collect()

    main(body)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, MemoryError, GeneratorExit])
def test_a_fatal_exception_is_reported_and_leaves_the_loop_alone(main, recorder, kind):
    async def fails():
        await asyncio.sleep(0)
        raise kind

    async def body():
        error, raised = await recorder().outcome(fails())
        assert (type(error), raised) == (kind, True)

    main(body)


def test_the_failure_of_a_future_is_thrown_where_it_waits(main, recorder):
    async def waits(future):
        try:
            await future
        except OSError as error:
            return f"caught {error}"

    async def body():
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, OSError("x"))
        assert await recorder().outcome(waits(future)) == ("caught x", False)

    main(body)


def test_cancel_carries_its_message_and_counts(main, recorder):
    seen = {}

    async def waits():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            seen["message"] = error.args
            seen["count"] = asyncio.current_task().cancelling()
            raise

    async def body():
        driver = recorder()
        _, task = driver.step(waits(), 1)
        assert task.cancel("stop")
        assert task.cancelling() == 1
        error, raised = (await driver.ended(1))[1]
        assert raised
        assert isinstance(error, asyncio.CancelledError)
        assert seen == {"message": ("stop",), "count": 1}
        assert task.cancelled()
        assert not task.cancel()
        with pytest.raises(asyncio.CancelledError):
            task.result()

    main(body)


def test_cancel_between_turns_reaches_it_in_the_next(main, recorder):
    async def body():
        driver = recorder()
        _, task = driver.step(tick(turns=100), 1)
        task.cancel()
        _, raised = (await driver.ended(1))[1]
        assert raised

    main(body)


def test_one_that_refuses_cancellation_ends_as_it_likes(main, recorder):
    async def refuses():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert asyncio.current_task().uncancel() == 0
        await asyncio.sleep(0)
        return "still here"

    async def body():
        driver = recorder()
        _, task = driver.step(refuses(), 1)
        task.cancel()
        assert (await driver.ended(1))[1] == ("still here", False)

    main(body)


def test_timeouts_inside_it_expire_and_keep_foreign_cancellations(main, recorder):
    async def expires():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        return asyncio.current_task().cancelling()

    async def body():
        assert await recorder().outcome(expires()) == (0, False)

    main(body)


def test_task_groups_inside_it_cancel_their_siblings(main, recorder):
    async def fails():
        await asyncio.sleep(0)
        raise ValueError("child")

    async def group():
        async with asyncio.TaskGroup() as tasks:
            sibling = tasks.create_task(asyncio.Event().wait())
            tasks.create_task(fails())
        return sibling

    async def body():
        error, raised = await recorder().outcome(group())
        assert raised
        assert [repr(e) for e in error.exceptions] == ["ValueError('child')"]

    main(body)


def test_a_cancelled_task_shows_where_it_waited(main, recorder):
    async def deep():
        await asyncio.Event().wait()

    async def body():
        driver = recorder()
        _, task = driver.step(deep(), 1)
        task.cancel()
        await driver.ended(1)
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert "deep" in [entry.name for entry in caught.traceback]

    main(body)


def test_context_variables_live_across_its_awaits_and_stay_inside(main, recorder):
    async def remembers(name):
        variable.set(name)
        await asyncio.sleep(0)
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, None)
        await future
        return variable.get()

    async def body():
        driver = recorder()
        for token, name in enumerate("abc"):
            driver.step(remembers(name), token)
        assert await driver.ended(3) == {0: ("a", False), 1: ("b", False), 2: ("c", False)}
        assert variable.get() == "unset"

    main(body)


def test_bare_yields_take_turns_with_the_tasks_of_asyncio(main, recorder):
    order = []

    async def steps(name):
        for turn in range(3):
            order.append(f"{name}{turn}")
            await asyncio.sleep(0)

    async def body():
        driver = recorder()
        ours = [driver.step(steps(name), token) for token, name in enumerate("ab")]
        theirs = asyncio.create_task(steps("x"))
        await driver.ended(2)
        await theirs
        assert len(ours) == 2
        assert [entry for entry in order if entry[0] != "x"] == ["a0", "b0", "a1", "b1", "a2", "b2"]
        assert order.index("x0") < order.index("a2")
        assert order.index("x1") < order.index("x2")

    main(body)


def test_a_turn_of_the_loop_lies_between_two_bare_yields(main, recorder):
    order = []

    async def yields():
        asyncio.get_running_loop().call_soon(order.append, "callback")
        await asyncio.sleep(0)
        order.append("resumed")

    async def body():
        await recorder().outcome(yields())
        assert order == ["callback", "resumed"]

    main(body)


@pytest.mark.parametrize(
    ("yielded", "message"),
    [
        (lambda: 7, "Task got bad yield: 7"),
        (lambda: (n for n in ()), "yield was used instead of yield from for generator"),
        (lambda: asyncio.get_running_loop().create_future(), "yield was used instead of yield from in task"),
        (asyncio.current_task, "Task cannot await on itself|yield was used instead"),
    ],
)
def test_what_cannot_be_waited_for_is_thrown_back(main, recorder, yielded, message):
    class Yields:
        def __await__(self):
            yield yielded()

    async def waits():
        with pytest.raises(RuntimeError, match=message):
            await Yields()
        return "said so"

    async def body():
        assert await recorder().outcome(waits()) == ("said so", False)

    main(body)


def test_a_future_of_another_loop_is_refused(main, recorder):
    async def waits(future):
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            await future
        return "refused"

    async def body():
        other = asyncio.new_event_loop()
        try:
            assert await recorder().outcome(waits(other.create_future())) == ("refused", False)
            python_future = asyncio.futures._PyFuture(loop=other)
            assert await recorder().outcome(waits(python_future)) == ("refused", False)
        finally:
            other.close()

    main(body)


def test_futures_written_in_python_are_waited_for(main, recorder):
    async def waits(future):
        return await future

    async def body():
        loop = asyncio.get_running_loop()
        future = asyncio.futures._PyFuture(loop=loop)
        loop.call_soon(future.set_result, "python")
        assert await recorder().outcome(waits(future)) == ("python", False)

    main(body)


def test_async_generators_are_driven_and_closed(main, recorder):
    closed = []

    async def numbers():
        try:
            for number in range(5):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def sums():
        total = 0
        async for number in numbers():
            total += number
        return total + sum([n async for n in numbers()])

    async def body():
        assert await recorder().outcome(sums()) == (20, False)
        assert closed == [True, True]

    main(body)


def test_it_shows_its_stack_and_its_name(main, recorder):
    async def waits():
        await asyncio.Event().wait()

    async def body():
        driver = recorder()
        _, task = driver.step(waits(), 1)
        task.set_name("mine")
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["waits"]
        text = io.StringIO()
        task.print_stack(file=text)
        assert "waits" in text.getvalue()
        assert "name='mine'" in repr(task)
        assert "wait_for=<Future pending" in repr(task)
        assert task.get_context() is not None
        task.cancel()
        await driver.ended(1)

    main(body)


def test_the_end_of_one_may_begin_others(main):
    from tidegate.executor import _native

    async def body():
        left, ended = 50, asyncio.Event()

        def settled(_token, _outcome, _raised):
            nonlocal left
            left -= 1
            if left > 0:
                driver.step(tick(turns=left % 3), contextvars.copy_context())
                if left % 3 == 0:
                    settled(0, None, False)
            else:
                ended.set()

        driver = _native.Driver(settled)
        driver.step(tick(), contextvars.copy_context())
        await ended.wait()
        assert left <= 0

    main(body)


def test_finished_tasks_serve_again_and_nobody_can_tell(main, recorder):
    async def body():
        driver = recorder()
        for wave in range(5):
            for token in range(20):
                driver.step(tick(token, 2), wave * 20 + token)
            await driver.ended(20 * (wave + 1))
        assert all(outcome == (token % 20, False) for token, outcome in driver.ends.items())
        assert driver.driver.spares <= 22

    main(body)
