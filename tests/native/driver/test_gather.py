"""tidegate's gather answers what asyncio.gather answers, and costs nothing for children that do not wait."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import Any

import pytest

from tidegate.executor import _native

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def value(of: Any) -> Any:
    return of


async def later(of: Any, turns: int = 1) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    return of


async def fail(message: str, turns: int = 0) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    raise ValueError(message)


class Awaitable:
    def __await__(self):
        yield from later("awaitable").__await__()
        return "awaitable"


def future(result: Any = None, error: BaseException | None = None) -> asyncio.Future[Any]:
    made = asyncio.get_running_loop().create_future()
    made.set_exception(error) if error else made.set_result(result)
    return made


def twice() -> list[Any]:
    task = asyncio.ensure_future(later("same"))
    coro, ready = later("waiting"), value("ready")
    return [task, coro, task, ready, coro, ready]


SCENARIOS = {
    "nothing": list,
    "ready": lambda: [value(n) for n in range(5)],
    "waiting": lambda: [later(n, n) for n in range(5)],
    "mixed": lambda: [value(0), later(1), value(2), asyncio.ensure_future(later(3)), future(4), Awaitable()],
    "ready failure": lambda: [value(0), fail("now"), value(2)],
    "failure while others wait": lambda: [later(0, 5), fail("soon", 2), later(2)],
    "two failures": lambda: [fail("second", 2), fail("first", 1)],
    "failed future": lambda: [later(0), future(error=OSError("x"))],
    "the same awaitable twice": twice,
    "more than can be compared in pairs": lambda: 2 * [later(n) for n in range(40)],
}


async def outcome(gather: Any, scenario: str, **options: Any) -> Any:
    answer = gather(*SCENARIOS[scenario](), **options)
    assert asyncio.isfuture(answer)
    try:
        results = await answer
    except Exception as error:
        return "raised", repr(error)
    assert type(results) is list
    return "returned", [repr(r) if isinstance(r, BaseException) else r for r in results]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("options", [{}, {"return_exceptions": True}], ids=["raise", "return"])
def test_the_answer_is_that_of_asyncio(main, scenario, options):
    async def body():
        theirs = await outcome(asyncio.gather, scenario, **options)
        assert await outcome(_native.gather, scenario, **options) == theirs
        await asyncio.sleep(0.001)
        gc.collect()

    main(body)


def test_children_that_do_not_wait_are_done_when_the_call_returns(main):
    async def body():
        before = len(asyncio.all_tasks())
        answer = _native.gather(value(1), value(2))
        assert answer.done()
        assert answer.result() == [1, 2]
        assert len(asyncio.all_tasks()) == before

    main(body)


def test_the_others_are_running_tasks(main):
    async def body():
        answer = _native.gather(later(1), later(2))
        assert not answer.done()
        assert sum(isinstance(task, _native.ItemTask) for task in asyncio.all_tasks()) == 2
        assert await answer == [1, 2]

    main(body)


def test_siblings_go_on_after_a_failure(main):
    ended = []

    async def sibling(turns):
        await later(None, turns)
        ended.append(turns)

    async def body():
        with pytest.raises(ValueError, match="now"):
            await _native.gather(sibling(0), fail("now"), sibling(0), sibling(3))
        assert ended == [0, 0]
        await later(None, 5)
        assert ended == [0, 0, 3]

    main(body)


@pytest.mark.parametrize("gather", [asyncio.gather, _native.gather], ids=["asyncio", "tidegate"])
def test_cancelling_the_gather_cancels_the_children_with_the_message(main, gather):
    seen = []

    async def waits():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            seen.append(error.args)
            raise

    async def body():
        answer = gather(waits(), waits(), value(3))
        await asyncio.sleep(0)
        assert answer.cancel("stop")
        with pytest.raises(asyncio.CancelledError):
            await answer
        assert seen == [("stop",), ("stop",)]
        assert not answer.cancel()

    main(body)


@pytest.mark.parametrize("gather", [asyncio.gather, _native.gather], ids=["asyncio", "tidegate"])
def test_a_cancelled_gather_is_cancelled_even_if_the_children_refuse(main, gather):
    async def refuses():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "no"

    async def body():
        for options in ({}, {"return_exceptions": True}):
            answer = gather(refuses(), **options)
            await asyncio.sleep(0)
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer

    main(body)


@pytest.mark.parametrize("gather", [asyncio.gather, _native.gather], ids=["asyncio", "tidegate"])
def test_a_child_that_was_cancelled_is_an_exception_of_the_gather(main, gather):
    async def body():
        for options, expected in (({}, "raised"), ({"return_exceptions": True}, "returned")):
            child = asyncio.ensure_future(asyncio.Event().wait())
            answer = gather(child, later(1), **options)
            child.cancel()
            try:
                results = await answer
            except asyncio.CancelledError:
                assert expected == "raised"
                assert not answer.cancelled()
            else:
                assert expected == "returned"
                assert isinstance(results[0], asyncio.CancelledError)

    main(body)


def test_cancelling_whoever_awaits_it_reaches_the_children(main):
    async def body():
        child = asyncio.ensure_future(asyncio.Event().wait())

        async def awaits():
            await _native.gather(later(1, 50), child)

        waiter = asyncio.ensure_future(awaits())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert child.cancelled()

    main(body)


def test_every_child_has_a_context_of_its_own(main):
    async def child(name, turns):
        seen = variable.get()
        if name:
            variable.set(name)
        await later(None, turns)
        return seen, variable.get()

    async def body():
        variable.set("caller")
        names = ["", "a", "", "b", ""]
        for turns in (0, 2):
            answers = await _native.gather(*[child(name, turns) for name in names])
            assert answers == [("caller", name or "caller") for name in names]
        assert variable.get() == "caller"

    main(body)


def test_children_see_themselves_as_the_current_task(main):
    async def child(turns):
        before = asyncio.current_task()
        await later(None, turns)
        return before is asyncio.current_task(), before

    async def body():
        outer = asyncio.current_task()
        answers = await _native.gather(*[child(turns) for turns in (0, 1, 0, 2)])
        assert all(same for same, _ in answers)
        assert len({id(task) for _, task in answers} | {id(outer)}) == 5
        assert asyncio.current_task() is outer

    main(body)


def test_gathers_nest(main):
    async def leaf(number):
        if number % 3 == 0:
            await asyncio.sleep(0)
        return number

    async def branch(number):
        return sum(await _native.gather(*[leaf(number * 10 + n) for n in range(10)]))

    async def body():
        assert await _native.gather(*[branch(n) for n in range(10)]) == [n * 100 + 45 for n in range(10)]

    main(body)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_fatal_exception_of_a_child_that_does_not_wait_leaves_the_call(main, kind):
    async def fatal():
        raise kind

    async def body():
        with pytest.raises(kind):
            _native.gather(value(1), fatal())

    main(body)


@pytest.mark.parametrize("turns", [1, 2])
def test_a_fatal_exception_of_a_child_that_waits_leaves_the_loop(turns):
    async def fatal():
        await later(None, turns)
        raise SystemExit(7)

    async def body():
        await _native.gather(fatal(), later(1, 9))

    with pytest.raises(SystemExit):
        asyncio.run(body())


def test_wrong_arguments_are_refused(main):
    async def body():
        with pytest.raises(TypeError, match="unexpected keyword argument 'loop'"):
            _native.gather(loop=None)
        with pytest.raises(TypeError, match=r"coroutine|awaitable|future"):
            await _native.gather(5)

    main(body)


def test_without_a_running_loop_it_is_that_of_asyncio():
    loop = asyncio.new_event_loop()
    try:
        made = loop.create_future()
        answer = _native.gather(made)
        loop.call_soon(made.set_result, 1)
        assert loop.run_until_complete(answer) == [1]
    finally:
        loop.close()


def test_a_gather_nobody_awaits_lets_its_children_end(main):
    ended = []

    async def child():
        await later(None, 2)
        ended.append(True)

    async def body():
        _native.gather(child(), child())
        gc.collect()
        await later(None, 5)
        assert ended == [True, True]

    main(body)


def test_what_was_gathered_is_freed(main):
    class Thing:
        alive = 0

        def __init__(self):
            Thing.alive += 1

        def __del__(self):
            Thing.alive -= 1

    async def thing(turns):
        made = Thing()
        await later(None, turns)
        return made

    async def body():
        for _ in range(10):
            await _native.gather(*[thing(turns) for turns in (0, 1, 2)])
        await asyncio.sleep(0)  # the loop's own handle still held the last one
        assert Thing.alive == 0

    main(body)
