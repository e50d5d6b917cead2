"""Host with coroutine functions, on its own loop thread."""

from __future__ import annotations

import asyncio
import contextvars
import threading

from tidegate.executor.current import current_item
from tidegate.executor.host import Host
from tidegate.model.outcome import Outcome
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry

PATIENCE_S = 60.0


def test_coroutines_that_never_suspend_settle_in_order(host: Host) -> None:
    async def echo(value: int) -> int:
        return value

    run = host.lane("t", echo, TaskPolicy(concurrency=10)).start(list(range(1000)))
    assert run.wait(PATIENCE_S)

    assert run.take().ok_values == list(range(1000))


def test_coroutines_suspend_and_run_at_once_up_to_the_concurrency(host: Host) -> None:
    running = peak = 0

    async def work(value: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.001)
        running -= 1
        return value

    run = host.lane("t", work, TaskPolicy(concurrency=7)).start(list(range(100)))
    assert run.wait(PATIENCE_S)

    assert run.take().ok_values == list(range(100))
    assert peak == 7


def test_a_coroutine_past_its_timeout_is_cancelled_and_says_where_it_waited(host: Host) -> None:
    async def stuck(_value: int) -> None:
        await asyncio.Event().wait()

    run = host.lane("t", stuck, TaskPolicy(timeout=0.05)).start([0])
    assert run.wait(PATIENCE_S)
    (failure,) = run.take().failures

    assert failure.outcome is Outcome.TIMED_OUT
    assert failure.error_type == "tidegate.executor.ItemTimeout"
    assert "in stuck" in failure.traceback.replace(".stuck", "in stuck") or "stuck" in failure.traceback
    assert failure.traceback.index("wait") < failure.traceback.index("stuck")  # innermost first


def test_a_timed_out_coroutine_is_retried_like_any_failure(host: Host) -> None:
    attempts: list[int] = []

    async def slow_once(value: int) -> int:
        item = current_item()
        assert item is not None
        attempts.append(item.attempt)
        if item.attempt == 1:
            await asyncio.Event().wait()
        return value

    run = host.lane("t", slow_once, TaskPolicy(timeout=0.5, retry=Retry(attempts=2, base=0))).start([9])
    assert run.wait(PATIENCE_S)

    assert run.take().ok_values == [9]
    assert attempts == [1, 2]


def test_a_coroutine_that_swallows_its_timeout_and_returns_has_succeeded(host: Host) -> None:
    async def stubborn(value: int) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return value
        return -1

    run = host.lane("t", stubborn, TaskPolicy(timeout=0.05)).start([4])
    assert run.wait(PATIENCE_S)

    assert run.take().ok_values == [4]


def test_cancelling_a_run_cancels_its_coroutines_and_no_others(host: Host) -> None:
    here = threading.Semaphore(0)
    go_on = asyncio.Event()

    async def work(value: int) -> int:
        here.release()
        await go_on.wait()
        return value

    lane = host.lane("t", work, TaskPolicy(concurrency=4))
    doomed, spared = lane.start([0, 1]), lane.start([2])
    for _ in range(3):
        assert here.acquire(timeout=PATIENCE_S)
    doomed.cancel()
    assert doomed.wait(PATIENCE_S)
    assert doomed.take().outcomes == {Outcome.CANCELLED: 2}
    assert not spared.done

    loop = host._loops[0].loop
    assert loop is not None
    loop.call_soon_threadsafe(go_on.set)
    assert spared.wait(PATIENCE_S)
    assert spared.take().ok_values == [2]


def test_errors_are_captured_with_the_chain_of_awaits(host: Host) -> None:
    async def inner() -> None:
        await asyncio.sleep(0)
        raise LookupError("deep")

    async def outer(_value: int) -> None:
        await inner()

    run = host.lane("t", outer, TaskPolicy()).start([0])
    assert run.wait(PATIENCE_S)
    (failure,) = run.take().failures

    assert failure.message == "deep"
    assert failure.traceback.index(".inner ") < failure.traceback.index(".outer ")


def test_every_item_has_a_context_of_its_own(host: Host) -> None:
    colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")

    async def paint(value: int) -> tuple[str, str]:
        before = colour.get()
        colour.set(f"c{value}")
        if value % 2:
            await asyncio.sleep(0)
        return before, colour.get()

    base = contextvars.Context()
    base.run(colour.set, "base")
    run = host.lane("t", paint, TaskPolicy(concurrency=3)).start(list(range(6)), context=base)
    assert run.wait(PATIENCE_S)

    assert run.take().ok_values == [("base", f"c{value}") for value in range(6)]
    assert base.run(colour.get) == "base"


def test_current_item_is_seen_by_tasks_and_threads_that_an_item_starts(host: Host) -> None:
    async def child() -> int:
        await asyncio.sleep(0)
        item = current_item()
        assert item is not None
        return item.index

    async def parent(value: int) -> list[int]:
        task = asyncio.create_task(child())
        if value % 2:
            return [await task, await asyncio.to_thread(lambda: current_item().index)]  # type: ignore[union-attr]
        return [await child(), await task]

    run = host.lane("t", parent, TaskPolicy(concurrency=5)).start(list(range(20)), first_index=50)
    assert run.wait(PATIENCE_S)

    assert run.take().ok_values == [[50 + value, 50 + value] for value in range(20)]


def test_a_child_task_that_outlives_its_item_still_names_that_item(host: Host) -> None:
    seen: dict[int, int] = {}
    go_on = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def child(value: int) -> None:
        await go_on.wait()
        item = current_item()
        assert item is not None
        seen[value] = item.index

    async def parent(value: int) -> None:
        tasks.append(asyncio.create_task(child(value)))  # and never suspends itself

    async def release(_value: int) -> None:
        go_on.set()
        await asyncio.gather(*tasks)

    run = host.lane("t", parent, TaskPolicy(concurrency=1)).start(list(range(5)))
    assert run.wait(PATIENCE_S)
    run = host.lane("r", release, TaskPolicy()).start([0])
    assert run.wait(PATIENCE_S)

    assert seen == {value: value for value in range(5)}


def test_a_function_that_returns_an_awaitable_or_a_plain_value_works_too(host: Host) -> None:
    class Callable:
        async def __call__(self, value: int) -> int:
            await asyncio.sleep(0)
            return value + 1

    run = host.lane("t", Callable(), TaskPolicy()).start([1, 2])
    assert run.wait(PATIENCE_S)

    assert run.take().ok_values == [2, 3]


def test_coroutines_in_flight_show_where_they_wait(host: Host) -> None:
    here = threading.Event()

    async def work(_value: int) -> None:
        here.set()
        await asyncio.Event().wait()

    run = host.lane("t", work, TaskPolicy()).start([0])
    assert here.wait(PATIENCE_S)
    while not (found := [one for one in host.running() if one.where]):  # its first step has not ended yet
        assert not run.wait(0.005)

    assert found[0].lane == "t"
    assert any("work" in line for line in found[0].where)
    run.cancel()
    assert run.wait(PATIENCE_S)


def test_closing_cancels_running_coroutines() -> None:
    here = threading.Event()
    cancelled: list[int] = []

    async def work(value: int) -> None:
        here.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(value)
            raise

    host = Host()
    run = host.lane("t", work, TaskPolicy()).start([5])
    assert here.wait(PATIENCE_S)
    assert host.close(timeout_s=PATIENCE_S)

    assert cancelled == [5]
    assert run.take().outcomes == {Outcome.CANCELLED: 1}
