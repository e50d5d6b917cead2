"""A coroutine that never suspends: nothing is made for it, and yet it cannot tell."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import Any

import pytest

from tidegate.executor import _native

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def value(of: Any) -> Any:
    return of


def test_its_value_is_answered_at_once(main, recorder):
    async def body():
        assert recorder().step(value(7)) == ("returned", 7)

    main(body)


def test_it_costs_no_turn_and_no_task(main, recorder):
    async def body():
        driver = recorder()
        driver.step(value(0))
        before = len(asyncio.all_tasks()), driver.driver.spares, len(gc.get_objects())
        for number in range(1000):
            driver.step(value(number))
        assert (len(asyncio.all_tasks()), driver.driver.spares) == before[:2]
        assert len(gc.get_objects()) - before[2] < 50
        assert driver.ends == {}

    main(body)


def test_its_exception_comes_with_the_frames_it_passed(main, recorder):
    async def inner():
        raise LookupError("gone")

    async def outer():
        await inner()

    async def body():
        how, error = recorder().step(outer())
        assert how == "raised"
        assert isinstance(error, LookupError)
        names = []
        traceback = error.__traceback__
        while traceback:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        assert names == ["outer", "inner"]

    main(body)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, MemoryError, GeneratorExit, asyncio.CancelledError])
def test_an_exception_of_any_kind_is_reported_and_leaves_the_loop_alone(main, recorder, kind):
    async def fails():
        raise kind

    async def body():
        how, error = recorder().step(fails())
        assert (how, type(error)) == ("raised", kind)

    main(body)


def test_it_sees_itself_as_the_current_task(main, recorder):
    async def look():
        task = asyncio.current_task()
        assert task is not None
        return isinstance(task, asyncio.Task), task in asyncio.all_tasks(), task.done(), task.get_coro().__name__

    async def body():
        outer = asyncio.current_task()
        assert recorder().step(look()) == ("returned", (True, True, False, "look"))
        assert asyncio.current_task() is outer

    main(body)


def test_between_items_the_task_that_waits_for_the_next_one_counts_as_done(main, recorder):
    async def body():
        driver = recorder()
        before = asyncio.all_tasks()
        driver.step(value(1))
        assert asyncio.all_tasks() == before

    main(body)


def test_a_task_that_was_kept_is_not_used_again_and_knows_its_result(main, recorder):
    async def keep(number):
        kept.append(asyncio.current_task())
        return number

    kept: list[Any] = []

    async def body():
        driver = recorder()
        for number in range(3):
            assert driver.step(keep(number)) == ("returned", number)
        assert len({id(task) for task in kept}) == 3
        assert [task.result() for task in kept] == [0, 1, 2]
        assert await asyncio.gather(*kept) == [0, 1, 2]

    main(body)


def test_a_kept_task_that_failed_has_the_exception_and_does_not_report_it_as_lost(main, recorder):
    kept: list[Any] = []

    async def fail():
        kept.append(asyncio.current_task())
        raise ValueError("once")

    async def body():
        driver = recorder()
        assert driver.step(fail())[0] == "raised"
        assert repr(kept[0].exception()) == "ValueError('once')"
        driver.step(fail())
        kept.clear()
        gc.collect()

    main(body)


def test_a_weakly_kept_task_is_not_shown_to_the_next_item(main, recorder):
    references = []

    async def look():
        task = asyncio.current_task()
        seen = [reference() is task for reference in references]
        references.append(weakref.ref(task))
        return seen

    async def body():
        driver = recorder()
        driver.step(look())
        assert driver.step(look())[1] == [False]

    main(body)


def test_a_callback_on_the_current_task_is_called_although_nobody_keeps_the_task(main, recorder):
    called = []

    async def ask():
        asyncio.current_task().add_done_callback(lambda task: called.append(task.result()))
        return 5

    async def body():
        recorder().step(ask())
        await asyncio.sleep(0)
        assert called == [5]

    main(body)


@pytest.mark.parametrize("write", [lambda t: setattr(t, "mine", 1), lambda t: t.__dict__.update(mine=1)])
def test_attributes_and_names_do_not_pass_to_the_next_item(main, recorder, write):
    async def mark():
        write(asyncio.current_task())
        asyncio.current_task().set_name("mine")

    async def look():
        return hasattr(asyncio.current_task(), "mine"), asyncio.current_task().get_name()

    async def body():
        driver = recorder()
        driver.step(mark())
        marked, name = driver.step(look())[1]
        assert not marked
        assert name != "mine"

    main(body)


def test_names_are_given_when_asked_for_and_differ(main, recorder):
    async def name():
        return asyncio.current_task().get_name()

    async def body():
        driver = recorder()
        assert driver.step(name())[1] != driver.step(name())[1]

    main(body)


def test_one_that_cancels_itself_and_returns_is_cancelled(main, recorder):
    async def give_up():
        assert asyncio.current_task().cancel("enough")
        return "not this"

    async def body():
        driver = recorder()
        how, error = driver.step(give_up())
        assert (how, type(error), error.args) == ("raised", asyncio.CancelledError, ("enough",))
        assert driver.step(value(1)) == ("returned", 1), "the next one is not touched by it"

    main(body)


def test_timeout_and_task_group_work_inside_it(main, recorder):
    async def body_of_item():
        async with asyncio.timeout(10) as limit, asyncio.TaskGroup():
            pass
        return limit.expired(), asyncio.current_task().cancelling()

    async def body():
        driver = recorder()
        for _ in range(3):
            assert driver.step(body_of_item()) == ("returned", (False, 0))

    main(body)


def test_its_context_variables_stay_in_its_context(main, recorder):
    async def change():
        variable.set("item")
        return variable.get()

    async def body():
        driver = recorder()
        context = contextvars.copy_context()
        assert driver.driver.step(change(), context) == ("returned", "item")
        assert variable.get() == "unset"
        assert context[variable] == "item"

    main(body)


def test_a_context_that_is_entered_already_is_an_error_of_that_item(main, recorder):
    async def body():
        driver = recorder()
        context = contextvars.copy_context()
        coro = value(1)
        how, error = context.run(driver.driver.step, coro, context)
        assert (how, type(error)) == ("raised", RuntimeError)
        coro.close()

    main(body)


def test_an_item_that_starts_items_sees_its_own_task_again_afterwards(main, recorder):
    async def body():
        driver = recorder()

        async def inner():
            return asyncio.current_task()

        async def outer():
            mine = asyncio.current_task()
            how, other = driver.step(inner())
            return how, other is not mine, asyncio.current_task() is mine

        assert driver.step(outer()) == ("returned", ("returned", True, True))

    main(body)


def test_a_batch_of_first_steps_shares_one_current_task_until_one_suspends(main, recorder):
    async def me(wait):
        task = id(asyncio.current_task())
        if wait:
            await asyncio.sleep(0)
        return task, id(asyncio.current_task())

    async def body():
        driver = recorder()
        outer = asyncio.current_task()
        coros = [me(False), me(False), me(True), me(False)]
        first, second, third, fourth = driver.driver.step_all(coros, contextvars.copy_context())
        assert asyncio.current_task() is outer
        assert first == second == (first[0], first[0])
        assert third is None
        assert fourth[0] != first[0]
        ((ended, _),) = (await driver.ended(1)).values()
        assert ended == (first[0], first[0]), "the task of its first step stays its task"

    main(body)


def test_generator_coroutines_and_objects_with_send_are_stepped_too(main, recorder):
    class Sends:
        def send(self, _value):
            raise StopIteration("sent")

        def throw(self, *_error):
            raise AssertionError

        def close(self):
            pass

    async def body():
        assert recorder().step(Sends()) == ("returned", "sent")

    main(body)


def test_a_driver_needs_a_running_loop():
    with pytest.raises(RuntimeError, match="no running event loop"):
        _native.Driver(print)
