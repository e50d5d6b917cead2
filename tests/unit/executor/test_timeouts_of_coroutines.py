"""Timeouts of coroutines that hold the loop: an interrupt strikes the step that is late, and nothing else on its thread."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tidegate.executor.executor import Executor
from tidegate.executor.host import Host
from tidegate.model.outcome import Outcome
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry

PATIENCE_S = 60.0


def spin(seconds: float = 3600.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def spins_at_once(_value: int) -> None:
    spin()


async def spins_after_waiting(_value: int) -> None:
    await asyncio.sleep(0.001)
    spin()


@pytest.mark.parametrize("function", [spins_at_once, spins_after_waiting])
def test_a_coroutine_that_never_awaits_is_interrupted(host: Host, function: Callable[[int], object]) -> None:
    run = host.lane("t", function, TaskPolicy(timeout=0.05)).start([0])
    assert run.wait(PATIENCE_S)
    (failure,) = run.take().failures

    assert failure.outcome is Outcome.TIMED_OUT
    assert failure.error_type == "tidegate.executor.ItemTimeout"
    assert "at spin" in failure.traceback
    assert f"at {function.__name__}" in failure.traceback


def test_the_others_on_the_loop_go_on(host: Host) -> None:
    async def work(value: int) -> int:
        if value % 10 == 3:
            spin()
        await asyncio.sleep(0.001)
        if value % 10 == 7:
            spin()
        return value

    # Those that are late have a short timeout, the others on the same loop one that nobody else's spinning uses up.
    numbers = list(range(40))
    late = [value for value in numbers if value % 10 in (3, 7)]
    others = [value for value in numbers if value not in late]
    late_run = host.lane("late", work, TaskPolicy(concurrency=1, timeout=0.03)).start(late)
    others_run = host.lane("others", work, TaskPolicy(concurrency=4, timeout=PATIENCE_S)).start(others)
    assert late_run.wait(PATIENCE_S)
    assert others_run.wait(PATIENCE_S)

    assert others_run.take().ok_values == others
    assert late_run.take().outcomes == {Outcome.TIMED_OUT: len(late)}


def test_an_interrupted_attempt_is_retried_as_any_timeout(host: Host) -> None:
    tries: list[int] = []

    async def second_time_lucky(value: int) -> int:
        tries.append(value)
        if len(tries) == 1:
            spin()
        return value

    policy = TaskPolicy(timeout=0.5, retry=Retry(attempts=3, base=0))
    run = host.lane("t", second_time_lucky, policy).start([8])
    assert run.wait(PATIENCE_S)
    settled = run.take()

    assert (settled.ok_values, settled.executions) == ([8], 2)


def test_a_task_group_around_the_spin_does_not_hide_that_it_was_the_timeout(host: Host) -> None:
    async def grouped(_value: int) -> None:
        async with asyncio.TaskGroup():
            spin()

    run = host.lane("t", grouped, TaskPolicy(timeout=0.05)).start([0])
    assert run.wait(PATIENCE_S)

    assert run.take().outcomes == {Outcome.TIMED_OUT: 1}


def test_after_an_interrupt_there_is_one_more_timeout_to_clean_up(host: Host) -> None:
    cleaned: list[int] = []

    async def tidy(value: int) -> None:
        try:
            spin()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(value)

    run = host.lane("t", tidy, TaskPolicy(timeout=1.5)).start([5])
    assert run.wait(PATIENCE_S)

    assert run.take().outcomes == {Outcome.TIMED_OUT: 1}
    assert cleaned == [5]


def test_one_that_swallows_the_interrupt_and_waits_for_ever_is_cancelled(host: Host) -> None:
    async def stubborn(_value: int) -> None:
        with contextlib.suppress(Exception):
            spin()
        await asyncio.sleep(3600)

    run = host.lane("t", stubborn, TaskPolicy(timeout=0.05)).start([0])
    assert run.wait(PATIENCE_S)

    assert run.take().outcomes == {Outcome.TIMED_OUT: 1}


def test_one_that_swallows_the_interrupt_and_spins_on_is_interrupted_again(host: Host) -> None:
    swallowed: list[int] = []

    async def deaf(value: int) -> int:
        while len(swallowed) < 3:
            try:
                spin()
            except TimeoutError:
                swallowed.append(value)
        return value

    run = host.lane("t", deaf, TaskPolicy(timeout=0.25)).start([4])
    assert run.wait(PATIENCE_S)

    assert run.take().ok_values == [4]
    assert swallowed == [4, 4, 4]


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_an_interrupt_that_strikes_a_destructor_comes_again(
    kind: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python can only report it there, whoever raised it."""
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: lost.append(what.exc_type))

    class Slow:
        def __del__(self) -> None:
            spin()

    def function(_value: int) -> None:
        Slow()
        spin()

    async def coroutine(value: int) -> None:
        function(value)

    run = host.lane("t", function if kind == "function" else coroutine, TaskPolicy(timeout=0.1)).start([0])
    assert run.wait(PATIENCE_S)

    assert run.take().outcomes == {Outcome.TIMED_OUT: 1}
    assert [error.__name__ for error in lost] == ["ItemTimeout"]


def test_one_that_swallows_interrupts_and_spins_after_each_turn_is_cancelled_nevertheless(host: Host) -> None:
    """One more timeout to clean up is given once: the second time it is cancelled, or it would go on for ever."""

    async def deaf(_value: int) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                spin()
            await asyncio.sleep(0)

    run = host.lane("t", deaf, TaskPolicy(timeout=0.05)).start([0])
    assert run.wait(PATIENCE_S)

    assert run.take().outcomes == {Outcome.TIMED_OUT: 1}


DEAF = """
import asyncio, time
from tidegate.executor.host import Host
from tidegate.model.policy import TaskPolicy

async def deaf(_value):
    while True:
        try:
            while True:
                time.monotonic()
        except TimeoutError:
            pass
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass

Host().lane("t", deaf, TaskPolicy(timeout=0.05, hard_timeout=0.5)).start([0]).wait(None)
"""


def test_the_hard_timeout_counts_from_the_start_whatever_is_swallowed() -> None:
    done = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert done.returncode == 86, done.stderr
    assert "past its hard timeout" in done.stderr


def test_a_coroutine_that_waits_for_a_run_in_the_blocking_way_is_interrupted_there(host: Host) -> None:
    shut = host.limit("shut", concurrency=1, supplied=True)
    inner = host.lane("inner", lambda value: value, TaskPolicy(), limits=[shut])

    async def outer(value: int) -> None:
        inner.start([value]).wait(None)

    run = host.lane("outer", outer, TaskPolicy(timeout=0.1)).start([0])
    assert run.wait(PATIENCE_S)

    assert run.take().outcomes == {Outcome.TIMED_OUT: 1}


def test_sync_items_that_run_on_the_loops_thread_meanwhile_are_not_interrupted_for_the_coroutine(host: Host) -> None:
    """A thread that waits for items helps to run them: the timeout of the one that waits must not strike one of those."""
    inner = host.lane("inner", lambda value: spin(0.12) or value, TaskPolicy(concurrency=1))

    async def outer(value: int) -> list[int]:
        run = inner.start([value, value])
        run.wait(None)
        settled = run.take()
        return [*settled.ok_values, *(-1 for _failure in settled.failures)]

    for _ in range(3):
        run = host.lane("outer", outer, TaskPolicy(timeout=0.05)).start([1])
        assert run.wait(PATIENCE_S)
        run.take()
        late = inner.start([2])  # whoever was struck by mistake would have failed
        assert late.wait(PATIENCE_S)
        assert late.take().ok_values == [2]
    assert host.snapshot()[0].failed == 0


def test_nor_are_sync_items_that_waited_for_others_there(host: Host) -> None:
    """An item that the waiting coroutine's thread runs waits for items itself, and goes on when they have ended."""
    deep = host.lane("deep", lambda value: value, TaskPolicy(concurrency=1))

    def middle(value: int) -> int:
        deep.start([value]).wait(None)
        spin(0.2)
        return value

    inner = host.lane("inner", middle, TaskPolicy(concurrency=1))
    runs = []

    async def outer(value: int) -> None:
        runs.append(inner.start([value] * 2))
        runs[-1].wait(None)

    for value in range(3):
        assert host.lane(f"outer{value}", outer, TaskPolicy(timeout=0.05)).start([value]).wait(PATIENCE_S)
    for run in runs:
        assert run.wait(PATIENCE_S)

    assert [run.take().outcomes for run in runs] == [{Outcome.SUCCEEDED: 2}] * 3


class Blocks:
    """Awaiting it blocks in C, with no bytecode between the end of the block and the end of the step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Iterator[None]:
        return map(time.sleep, [self.seconds])


def test_an_interrupt_that_was_not_delivered_by_the_end_of_the_step_is_taken_back() -> None:
    """The loop's own code is what would run next. The item is cancelled instead, as one that waits."""

    async def blocks(_value: int) -> None:
        await Blocks(0.1)
        await asyncio.sleep(3600)

    async def main() -> None:
        async with Executor(1, timeout=0.03) as executor:
            for _ in range(3):
                outcomes = await executor.amap(blocks, [0])
                assert outcomes.counts() == {Outcome.TIMED_OUT: 1}

    asyncio.run(main())


def test_interrupts_strike_no_other_item_and_never_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hammer: steps that end right around their timeout, thousands of interrupts on their way, and beside them on the
    same loop a task, callbacks and items without a timeout, none of which may ever see one."""
    spoiled: list[object] = []

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        # One that strikes a destructor, or the callback of a weak reference, during its step is lost there: see
        # test_an_interrupt_that_strikes_a_destructor_comes_again.
        if what.exc_type.__name__ != "ItemTimeout":
            spoiled.append(what.exc_value)

    monkeypatch.setattr(sys, "unraisablehook", unraisable)
    rng = random.Random(7)
    lengths = [0.002 + rng.uniform(-0.0015, 0.0025) for _ in range(600)]

    async def near_the_edge(seconds: float) -> float:
        spin(seconds / 2)
        if seconds > 0.003:
            await asyncio.sleep(0)
        if seconds > 0.0025:
            await Blocks(seconds / 2)
        else:
            spin(seconds / 2)
        return seconds

    async def innocent(value: int) -> int:
        for _ in range(3):
            sum(range(200))
            await asyncio.sleep(0)
        return value

    async def bystander(stop: asyncio.Event) -> int:
        turns = 0
        while not stop.is_set():
            sum(range(100))
            turns += 1
            await asyncio.sleep(0)
        return turns

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: spoiled.append(context))
        stop = asyncio.Event()
        watching = asyncio.create_task(bystander(stop))

        def callback() -> None:
            sum(range(100))
            if not stop.is_set():
                loop.call_soon(callback)

        callback()
        async with Executor(8, timeout=0.002) as hammered, Executor(8) as calm:
            edges, others = await asyncio.gather(
                hammered.amap(near_the_edge, lengths), calm.amap(innocent, range(2000))
            )
            stop.set()
            assert await watching > 0
            assert others.values == list(range(2000))
            assert set(edges.counts()) <= {Outcome.SUCCEEDED, Outcome.TIMED_OUT}
            assert edges.counts().get(Outcome.TIMED_OUT, 0) > 0
            assert all(outcome.value == lengths[outcome.index] for outcome in edges if outcome.ok)

    asyncio.run(main())

    assert spoiled == []


def test_a_loop_that_moves_to_another_thread_takes_its_interrupts_with_it() -> None:
    """The interrupt goes to the thread that runs the step, not to the one that first ran the loop."""
    loop = asyncio.new_event_loop()
    executor = Executor(4, timeout=0.05)
    assert loop.run_until_complete(executor.amap(spins_at_once, [0])).counts() == {Outcome.TIMED_OUT: 1}
    found: list[dict[Outcome, int]] = []
    thread = threading.Thread(
        target=lambda: found.append(loop.run_until_complete(executor.amap(spins_at_once, [0])).counts())
    )
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while thread.is_alive() and time.monotonic() < deadline:
        sum(range(100))  # an interrupt that went astray would strike here
    thread.join(PATIENCE_S)
    loop.run_until_complete(executor.aclose())
    loop.close()

    assert found == [{Outcome.TIMED_OUT: 1}]
