"""Executor: run, map, stream and their async twins, for people."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import sys
import threading
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tidegate import ConfigurationError, ExecutorClosed, Limit, Retry, RetryAfter, current_item
from tidegate.errors import LimitKeyError
from tidegate.executor import Breaker, CFunction
from tidegate.executor.executor import Executor
from tidegate.model.outcome import Outcome

Make = Callable[..., Executor]
PATIENCE_S = 60.0


def fail_on_three(value: int) -> int:
    if value == 3:
        raise ValueError("three")
    return value


async def afail_on_three(value: int) -> int:
    await asyncio.sleep(0)
    return fail_on_three(value)


@pytest.mark.parametrize("function", [fail_on_three, afail_on_three])
def test_map_never_raises_and_keeps_the_order(executors: Make, function: Callable[[int], object]) -> None:
    outcomes = executors(4).map(function, range(6))

    assert [outcome.index for outcome in outcomes] == list(range(6))
    assert outcomes.values == [0, 1, 2, None, 4, 5]
    assert outcomes.counts() == {Outcome.SUCCEEDED: 5, Outcome.FAILED: 1}
    bad = outcomes[3]
    assert not bad.ok
    assert isinstance(bad.error, ValueError)
    assert bad.error.__traceback__ is None  # its text is in trace; its frames are gone
    assert "fail_on_three" in bad.trace
    assert bad.attempts == 1
    assert outcomes[-1].value == 5
    assert outcomes.failures == [bad]


@pytest.mark.filterwarnings("error")
def test_a_plain_function_that_returns_a_coroutine_is_told(executors: Make) -> None:
    """It would pass for done, with a coroutine as its value that nobody awaits."""
    outcomes = executors().map(lambda value: afail_on_three(value), [1, 2])  # noqa: PLW0108

    assert [type(outcome.error) for outcome in outcomes] == [TypeError, TypeError]
    assert "nobody awaits: make the function `async def`" in str(outcomes[0].error)


def test_outcomes_read_like_a_list(executors: Make) -> None:
    outcomes = executors().map(str, [1, 2, 3])

    assert len(outcomes) == 3
    assert [one.value for one in outcomes[1:]] == ["2", "3"]
    assert outcomes == list(outcomes)
    with pytest.raises(IndexError):
        outcomes[3]
    with pytest.raises(ValueError, match="three"):
        executors().map(fail_on_three, [3])[0].unwrap()


def test_map_takes_more_items_than_one_run_does(executors: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.executor.executor.CHUNK", 7)
    outcomes = executors(3).map(fail_on_three, range(50))

    assert [outcome.index for outcome in outcomes] == list(range(50))
    assert outcomes.failed == 1
    assert outcomes[49].value == 49


def test_times_and_attempts_of_each_item_are_kept(executors: Make) -> None:
    def work(_value: int) -> None:
        item = current_item()
        assert item is not None
        time.sleep(0.02)
        if item.attempt == 1:
            raise OSError

    outcome = executors(retry=Retry(attempts=2, base=0.03, jitter="none")).map(work, [0])[0]

    assert outcome.attempts == 2
    assert outcome.run_s >= 0.039
    assert outcome.waited_s >= 0.029


def test_run_returns_or_raises(executors: Make) -> None:
    executor = executors()

    assert executor.run(divmod, 7, 2) == (3, 1)
    assert executor.run(int, "11", base=2) == 3
    with pytest.raises(ValueError, match="three") as raised:
        executor.run(fail_on_three, 3)
    assert any(entry.name == "fail_on_three" for entry in raised.traceback)


def test_run_retries_first(executors: Make) -> None:
    calls: list[int] = []

    def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise OSError
        return "done"

    assert executors(retry=Retry(attempts=3, base=0)).run(flaky) == "done"


def test_a_timeout_of_run_says_how_long(executors: Make) -> None:
    def spin() -> None:
        while True:
            pass

    with pytest.raises(TimeoutError, match="longer than the timeout"):
        executors(timeout=0.05).run(spin)


def test_the_fallback_takes_the_place_of_what_failed(executors: Make) -> None:
    executor = executors(fallback=lambda item, error: (item, str(error)))
    outcomes = executor.map(fail_on_three, range(5))

    assert outcomes.values == [0, 1, 2, (3, "three"), 4]
    assert outcomes[3].fell_back
    assert outcomes[3].outcome is Outcome.FAILED  # what happened is not hidden
    assert outcomes[3].unwrap() == (3, "three")
    assert executor.run(fail_on_three, 3) == (3, "three")
    assert asyncio.run(executor.arun(afail_on_three, 3)) == (3, "three")


def test_a_fallback_that_fails_leaves_the_first_error(executors: Make) -> None:
    def broken(_item: int, _error: BaseException) -> None:
        raise KeyError

    outcomes = executors(fallback=broken).map(fail_on_three, [3])

    assert isinstance(outcomes[0].error, ValueError)
    assert not outcomes[0].fell_back


def test_the_concurrency_holds_over_kinds_and_loops(executors: Make) -> None:
    executor = executors(3)
    lock, running, peak = threading.Lock(), 0, 0

    all_there = threading.Event()  # nobody leaves before all places were taken once

    def enter(step: int) -> None:
        nonlocal running, peak
        with lock:
            running += step
            peak = max(peak, running)
            if running == 3:
                all_there.set()

    def sync(_value: int) -> None:
        enter(1)
        all_there.wait(PATIENCE_S)
        time.sleep(0.002)
        enter(-1)

    async def coroutine(_value: int) -> None:
        enter(1)
        while not all_there.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.002)
        enter(-1)

    async def both() -> None:
        await asyncio.gather(executor.amap(coroutine, range(20)), executor.amap(sync, range(20)))

    threads = [
        threading.Thread(target=lambda: asyncio.run(both())),
        threading.Thread(target=lambda: executor.map(coroutine, range(20))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert peak == 3


def test_the_rate_is_shared_too(executors: Make) -> None:
    executor = executors(8, rate=200, burst=1)
    started = time.monotonic()
    executor.map(str, range(5))
    executor.map(afail_on_three, range(5))

    assert time.monotonic() - started >= 9 * 0.005 * 0.95


# ---- streams ----


@pytest.mark.parametrize("function", [fail_on_three, afail_on_three])
@pytest.mark.parametrize("ordered", [True, False])
def test_stream_hands_out_every_outcome_once(executors: Make, function: Callable[[int], object], ordered: bool) -> None:
    found = list(executors(4).stream(function, range(200), high_water=20, ordered=ordered))
    indices = [outcome.index for outcome in found]

    assert (indices if ordered else sorted(indices)) == list(range(200))
    assert [outcome.index for outcome in found if not outcome.ok] == [3]


@pytest.mark.parametrize("ordered", [True, False])
def test_stream_takes_no_more_than_the_high_water_mark(executors: Make, ordered: bool) -> None:
    taken = handed = most = 0

    def source() -> Iterator[int]:
        nonlocal taken, most
        for value in range(2000):
            taken += 1
            most = max(most, taken - handed)
            yield value

    for _outcome in executors(4).stream(abs, source(), high_water=50, ordered=ordered):
        handed += 1

    assert handed == 2000
    assert most <= 51  # the one that is being pulled


def test_an_unordered_stream_is_not_held_up_by_a_slow_item(executors: Make) -> None:
    go_on = threading.Event()

    def work(value: int) -> int:
        if value == 0:
            go_on.wait(PATIENCE_S)
        return value

    stream = executors(4).stream(work, range(20), high_water=8, ordered=False)
    first = [next(stream).index for _ in range(7)]
    go_on.set()

    assert 0 not in first
    assert sorted(first + [outcome.index for outcome in stream]) == list(range(20))


def test_leaving_a_stream_cancels_the_rest(executors: Make) -> None:
    seen: list[int] = []
    executor = executors(1)
    stream = executor.stream(lambda value: seen.append(value) or time.sleep(0.01), range(1000), high_water=10)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    executor.run(int)

    assert len(seen) <= 12


def test_astream_over_async_and_plain_iterables(executors: Make) -> None:
    executor = executors(4)

    async def source() -> AsyncIterator[int]:
        for value in range(100):
            if value % 10 == 0:
                await asyncio.sleep(0.001)
            yield value

    async def main() -> tuple[list[int], list[int]]:
        ordered = [one.index async for one in executor.astream(afail_on_three, source(), high_water=16)]
        unordered = [
            one.index async for one in executor.astream(fail_on_three, range(100), ordered=False, high_water=16)
        ]
        return ordered, unordered

    ordered, unordered = asyncio.run(main())
    assert ordered == list(range(100))
    assert sorted(unordered) == list(range(100))


def test_a_slow_source_does_not_hold_back_what_is_done(executors: Make) -> None:
    executor = executors(4)

    async def main() -> list[int]:
        go_on = asyncio.Event()

        async def source() -> AsyncIterator[int]:
            yield 1
            await go_on.wait()
            yield 2

        found = []
        async for outcome in executor.astream(afail_on_three, source()):
            found.append(outcome.value)
            go_on.set()
        return found

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE_S)) == [1, 2]


def test_an_error_of_the_source_is_raised_after_its_items(executors: Make) -> None:
    executor = executors(4)

    async def source() -> AsyncIterator[int]:
        yield 1
        raise LookupError("source")

    async def main() -> list[int]:
        found: list[int] = []

        async def read() -> None:
            async for outcome in executor.astream(afail_on_three, source()):
                found.append(outcome.value)

        with pytest.raises(LookupError, match="source"):
            await read()
        return found

    assert asyncio.run(main()) == [1]


# ---- on the running loop ----


def test_arun_and_amap_use_the_running_loop(executors: Make) -> None:
    executor = executors(4)

    async def where() -> asyncio.AbstractEventLoop:
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    async def main() -> bool:
        return await executor.arun(where) is asyncio.get_running_loop()

    assert asyncio.run(main())
    assert asyncio.run(main())  # another loop, the same executor


def test_arun_of_a_sync_function_leaves_the_loop_free(executors: Make) -> None:
    executor = executors(4)

    async def main() -> bool:
        free = threading.Event()
        asyncio.get_running_loop().call_later(0.01, free.set)
        return await executor.arun(free.wait, PATIENCE_S)

    assert asyncio.run(main())


def test_cancelling_amap_cancels_its_items(executors: Make) -> None:
    executor = executors(4)
    cancelled: list[int] = []
    begun: list[int] = []

    async def work(value: int) -> None:
        begun.append(value)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(value)
            raise

    async def main() -> None:
        task = asyncio.create_task(executor.amap(work, range(10)))
        while len(begun) < 4:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while len(cancelled) < 4:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
    assert sorted(cancelled) == [0, 1, 2, 3]


def test_sync_items_that_outlive_their_cancelled_loop_end_in_silence(
    executors: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    executor, begun, go_on = executors(1), threading.Event(), threading.Event()

    def item(_: int) -> None:
        begun.set()
        go_on.wait(30.0)

    async def main() -> None:
        waiting = asyncio.create_task(executor.amap(item, range(3)))
        await asyncio.to_thread(begun.wait, 30.0)
        waiting.cancel()
        await asyncio.wait([waiting])

    asyncio.run(main())
    go_on.set()
    assert executor.close(timeout_s=30.0)
    assert heard == []


def test_the_report_is_there_after_the_end() -> None:
    with Executor(2) as executor:
        executor.map(abs, range(10))
    assert executor.report().items == 10


def test_async_with_closes_without_blocking_the_loop() -> None:
    async def main() -> None:
        async with Executor(4) as executor:
            assert await executor.arun(afail_on_three, 1) == 1
        with pytest.raises(ExecutorClosed):
            await executor.arun(afail_on_three, 1)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_contextvars_of_the_caller_are_seen(executors: Make) -> None:
    import contextvars

    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    who.set("caller")
    executor = executors()

    assert executor.map(lambda _value: who.get(), [1, 2]).values == ["caller"] * 2
    assert executor.run(who.get) == "caller"


# ---- C functions ----


def test_c_functions_over_doubles(executors: Make) -> None:
    cos = ctypes.CDLL(ctypes.util.find_library("m")).cos
    executor = executors(2)

    assert executor.map(CFunction.of(cos), [0.0] * 3).values == [1.0] * 3
    numbers = array("d", [0.0, 1.0]) * 1000
    assert list(executor.map(CFunction.of(cos), numbers).values)[:2] == pytest.approx([1.0, 0.5403023])


def test_c_functions_over_bytes_fail_by_their_status(executors: Make) -> None:
    @ctypes.CFUNCTYPE(
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_char),
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_char),
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_size_t),
    )
    def reverse(source: object, size: int, out: object, room: int, length: object) -> int:
        data = source[:size][::-1]  # type: ignore[index]
        if size > room:
            return -1
        for position, byte in enumerate(data):
            out[position] = byte  # type: ignore[index]
        length[0] = size  # type: ignore[index]
        return 0

    outcomes = executors(2).map(CFunction.of(reverse, "int(bytes,out)", out_bytes=4), [b"abc", b"too long", b""])

    assert [outcome.value for outcome in outcomes if outcome.ok] == [b"cba", b""]
    assert "returned -1" in str(outcomes[1].error)


# ---- the rest ----


def test_options_that_make_no_sense_are_refused() -> None:
    for options in ({"concurrency": 0}, {"rate": "often"}, {"timeout": 0}, {"memory_limit": 0}, {"threads": 0}):
        with pytest.raises(ConfigurationError):
            Executor(**options)  # type: ignore[arg-type]
    with Executor() as executor, pytest.raises(ConfigurationError):
        list(executor.stream(abs, [1], high_water=0))


def test_a_closed_executor_says_so_and_closes_twice() -> None:
    executor = Executor()
    executor.close()
    executor.close()
    with pytest.raises(ExecutorClosed):
        executor.run(int)


def test_the_report_adds_up_and_finds_what_stands_out(executors: Make) -> None:
    executor = executors(4, retry=Retry(attempts=2, base=0))
    executor.map(lambda value: fail_on_three(3 if value % 2 else 1), range(100))
    report = executor.report()

    assert report.items == 100
    assert report.outcomes["failed"] == 50
    assert (report.executions, report.retries) == (150, 50)
    assert report.errors == {"ValueError": 1.0}
    assert report.findings[0].code == "many-failures"  # worst first
    assert "50.0% of the items failed" in str(report)
    assert report.to_dict()["outcomes"]["succeeded"] == 50
    assert executor.report().items == 100  # reading it changes nothing


def test_c_functions_by_run_and_on_a_loop(executors: Make) -> None:
    cos = CFunction.of(ctypes.CDLL(ctypes.util.find_library("m")).cos)
    executor = executors(2)

    assert executor.run(cos, 0.0) == 1.0
    assert asyncio.run(executor.arun(cos, 0.0)) == 1.0
    assert asyncio.run(executor.amap(cos, [0.0, 0.0])).values == [1.0, 1.0]
    assert [one.value for one in executor.stream(cos, [0.0])] == [1.0]


def test_further_limits_hold_per_key(executors: Make) -> None:
    running: dict[str, int] = {}
    peaks: dict[str, int] = {}
    lock = threading.Lock()

    def visit(url: tuple[str, int]) -> None:
        with lock:
            running[url[0]] = running.get(url[0], 0) + 1
            peaks[url[0]] = max(peaks.get(url[0], 0), running[url[0]])
        time.sleep(0.002)
        with lock:
            running[url[0]] -= 1

    executor = executors(16, limits=[Limit("host", concurrency=2, key=lambda url: url[0])])
    outcomes = executor.map(visit, [(host, number) for host in "abc" for number in range(8)])

    assert outcomes.failed == 0
    assert set(peaks) == set("abc")
    assert max(peaks.values()) <= 2


def test_an_item_without_a_key_is_not_bound_and_one_whose_key_fails_fails_alone(executors: Make) -> None:
    all_at_once = threading.Barrier(4, timeout=PATIENCE_S)

    def visit(host: str | None) -> str | None:
        if host is None:
            all_at_once.wait()
        return host

    def key(host: str | None) -> str | None:
        if host == "odd":
            raise LookupError(host)
        return host

    outcomes = executors(16, limits=[Limit("host", concurrency=1, key=key)]).map(visit, [None] * 4 + ["a", "odd", "a"])

    assert outcomes.values[:5] == [None, None, None, None, "a"]
    assert [outcome.ok for outcome in outcomes] == [True] * 5 + [False, True]
    with pytest.raises(LimitKeyError, match="LookupError: odd"):
        outcomes[5].unwrap()


@pytest.mark.parametrize("pause_s", [0.5, 600.0])
def test_a_retry_after_pauses_its_key_and_no_other(executors: Make, pause_s: float) -> None:
    """A short pause is waited for; during a long one all of the other key's items come out."""
    starts: list[float] = []
    told = threading.Event()

    def visit(item: tuple[str, int]) -> None:
        if item[0] == "b":
            assert told.wait(PATIENCE_S)
            return
        starts.append(time.monotonic())
        if len(starts) == 1:
            told.set()
            raise RetryAfter(pause_s)

    limits = [Limit("host", concurrency=1, key=lambda item: item[0])]
    items = [(host, number) for number in range(5) for host in "ab"]
    stream = executors(8, limits=limits, retry=Retry(attempts=2)).stream(visit, items, ordered=False)
    if pause_s > PATIENCE_S:
        others = [next(stream) for _ in range(5)]
        assert sorted(outcome.index for outcome in others) == [1, 3, 5, 7, 9]
        assert len(starts) == 1
        stream.close()  # type: ignore[attr-defined]
        return

    assert all(outcome.ok for outcome in stream)
    first, *later = starts
    assert len(later) == 5
    assert min(later) - first >= pause_s


def test_a_breaker_refuses_what_keeps_failing_and_closes_again(executors: Make) -> None:
    broken = True
    calls: list[int] = []

    def call(value: int) -> int:
        calls.append(value)
        if broken:
            raise ConnectionError
        return value

    breaker = Breaker(min_calls=5, failure_ratio=0.5, open_for=0.2, probes=1, refuse=True)
    executor = executors(1, breaker=breaker, retry=Retry(attempts=1))
    outcomes = executor.map(call, range(5000))  # many: a closed breaker is asked once for a stretch of quick items
    assert len(calls) < 5000
    assert "CircuitOpen" in str(outcomes[-1].error)

    broken = False
    deadline = time.monotonic() + PATIENCE_S
    while not executor.map(call, [1])[0].ok:
        assert time.monotonic() < deadline
    assert executor.map(call, range(10)).failed == 0
