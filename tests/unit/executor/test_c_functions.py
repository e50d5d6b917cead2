"""C functions: the same promises as other functions, as far as machine code lets itself be promised anything."""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tidegate.errors import CFunctionFailed, ConfigurationError
from tidegate.executor import Breaker, CFunction
from tidegate.executor.executor import Executor
from tidegate.model.outcome import Outcome
from tidegate.model.retry import Retry

Make = Callable[..., Executor]

#: Less than the sixty seconds that what hangs here sleeps.
PATIENCE_S = 50.0

Bytes = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_char),
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_char),
    ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_size_t),
)
Double = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)


def of_bytes(function: Callable[[bytes], int], **options: object) -> CFunction:
    """A C function that returns what ``function`` does, and whose output is its input."""

    def called(source: object, length: int, target: object, room: int, used: object) -> int:
        data = ctypes.string_at(source, length)  # type: ignore[arg-type]
        status = function(data)
        ctypes.memmove(target, data, min(length, room))  # type: ignore[arg-type]
        used[0] = min(length, room)  # type: ignore[index]
        return status

    return CFunction.of(Bytes(called), "int(bytes,out)")


def test_a_positive_status_is_retried_and_a_negative_one_is_final(executors: Make) -> None:
    calls: dict[bytes, int] = {}
    lock = threading.Lock()

    def flaky(data: bytes) -> int:
        with lock:
            calls[data] = calls.get(data, 0) + 1
            tries = calls[data]
        return {b"once": 0, b"twice": 5 if tries < 2 else 0, b"never": 7, b"no": -3}[data]

    executor = executors(2, retry=Retry(attempts=3, base=0))
    outcomes = executor.map(of_bytes(flaky), [b"once", b"twice", b"never", b"no"])

    assert [one.ok for one in outcomes] == [True, True, False, False]
    assert (
        [one.attempts for one in outcomes]
        == [1, 2, 3, 1]
        == [calls[one] for one in (b"once", b"twice", b"never", b"no")]
    )
    assert outcomes.values == [b"once", b"twice", None, None]
    errors = [one.error for one in outcomes.failures]
    assert [error.status for error in errors if isinstance(error, CFunctionFailed)] == [7, -3]
    assert "no further attempt: attempts used up" in outcomes[2].trace
    assert "test_c_functions.py" in outcomes[2].trace.splitlines()[-1]


def test_times_of_each_element_are_kept(executors: Make) -> None:
    def naps(value: float) -> float:
        time.sleep(value)
        return value

    began = time.monotonic()
    outcomes = executors(1).map(CFunction.of(Double(naps)), [0.05, 0.0])
    took_s = time.monotonic() - began

    assert outcomes[0].run_s >= 0.05
    assert outcomes[0].run_s + outcomes[1].run_s <= took_s  # the time of one is not told of the other too
    assert outcomes[1].waited_s >= 0.05
    assert [one.attempts for one in outcomes] == [1, 1]


def test_an_element_that_returns_after_its_timeout_has_timed_out(executors: Make) -> None:
    """Nothing can interrupt it. Its late result is not passed off as one that was in time."""

    def naps(value: float) -> float:
        time.sleep(value)
        return value

    function = CFunction.of(Double(naps))
    outcomes = executors(2, timeout=1.0).map(function, [0.0, 1.1, 0.0])  # the others have a second to be in time

    assert [one.outcome for one in outcomes] == [Outcome.SUCCEEDED, Outcome.TIMED_OUT, Outcome.SUCCEEDED]
    assert isinstance(outcomes[1].error, TimeoutError)
    assert outcomes.values == [0.0, None, 0.0]
    again = executors(2, timeout=0.05, retry=Retry(attempts=2, base=0)).map(function, [0.1])
    assert (again[0].outcome, again[0].attempts) == (Outcome.TIMED_OUT, 2)


def test_elements_that_never_ran_say_so(executors: Make) -> None:
    """Cancelled ones, and ones that a breaker refused: no status of theirs says anything."""
    executor = executors(1, breaker=Breaker(failure_ratio=0.5, min_calls=2, refuse=True, open_for=60))
    outcomes = executor.map(of_bytes(lambda _data: 1), [b"x"] * 50)

    counts = outcomes.counts()
    assert counts == {Outcome.FAILED: 50}
    refused = [one for one in outcomes if one.attempts == 0]
    assert refused
    assert all("circuit" in str(one.error) for one in refused)


@pytest.mark.parametrize("ordered", [True, False])
def test_stream_takes_c_functions_and_bounds_what_is_taken(executors: Make, ordered: bool) -> None:
    taken = 0

    def source() -> Iterator[float]:
        nonlocal taken
        for number in range(5000):
            taken += 1
            yield float(number)

    executor = executors(4)
    seen: list[float] = []
    for outcome in executor.stream(
        CFunction.of(Double(lambda value: value + 1)), source(), high_water=64, ordered=ordered
    ):
        seen.append(outcome.unwrap())
        assert taken - len(seen) <= 64

    assert (seen if ordered else sorted(seen)) == [number + 1.0 for number in range(5000)]


def test_on_a_loop_nothing_blocks(executors: Make) -> None:
    turns = threading.Semaphore(0)

    def waits(value: float) -> float:
        """Until the loop has turned a few times: never, if it is the loop that waits here."""
        return value if all(turns.acquire(timeout=30.0) for _ in range(5)) else -1.0

    async def numbers() -> AsyncIterator[float]:
        for number in range(4):
            yield float(number)

    async def main() -> None:
        executor = executors(4)
        function = CFunction.of(Double(waits))

        async def count() -> None:
            while True:
                await asyncio.sleep(0.001)
                turns.release()

        counting = asyncio.create_task(count())
        assert list((await executor.amap(function, numbers())).values) == [0.0, 1.0, 2.0, 3.0]
        assert [one.value async for one in executor.astream(function, numbers(), high_water=2)] == [0.0, 1.0, 2.0, 3.0]
        assert await executor.arun(function, 9.0) == 9.0
        counting.cancel()

    asyncio.run(main())


def test_the_fallback_takes_the_place_of_what_failed(executors: Make) -> None:
    executor = executors(2, fallback=lambda item, error: (item, error.status))

    assert executor.map(of_bytes(len), [b"", b"abc"]).values == [b"", (b"abc", 3)]


def test_it_takes_one_value_and_says_so(executors: Make) -> None:
    with pytest.raises(ConfigurationError, match="exactly one value"):
        executors(1).run(CFunction.of(Double(lambda value: value)), 1.0, 2.0)
    with pytest.raises(ConfigurationError, match="fallback"):
        Executor(fallback=CFunction.of(Double(lambda value: value)))


STUCK = """
import ctypes
import dataclasses
import os
from tidegate.executor import CFunction, Executor

nap = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(lambda value: ctypes.CDLL(None).sleep(60))
Executor(1, hard_timeout=0.2).map(CFunction.of(nap), [1.0])
"""


def test_an_element_that_is_stuck_ends_the_process_at_its_hard_timeout() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == 86, done.stderr
    assert re.search(r"a C function is \d+\.\d+ s past its hard timeout", done.stderr), done.stderr


CLOSED_MEANWHILE = """
import ctypes, threading
from tidegate.executor import CFunction
from tidegate.executor.ccalls import CRun
from tidegate.executor.host import Host
from tidegate.model.policy import TaskPolicy

begun = threading.Event()
nap = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(lambda _: begun.set() or ctypes.CDLL(None).sleep(60))
function, host = CFunction.of(nap), Host()
run = CRun(host.lane("t", function, TaskPolicy(hard_timeout=0.5)), function, [1.0], None)
begun.wait()
host.close()
"""


def test_also_while_the_executor_is_being_closed() -> None:
    """Closing waits for what runs in C; its hard timeout is what says for how long."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_MEANWHILE], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == 86, done.stderr


def test_functions_that_wait_get_their_threads_after_ones_that_compute(executors: Make) -> None:
    """The pool is made for the first call, and grows when a later one needs more."""
    many = 2 * len(os.sched_getaffinity(0)) + 2
    together = threading.Barrier(many)  # breaks, which fails no C function: so it is noted

    def waits(value: float) -> float:
        try:
            together.wait(30.0)
        except threading.BrokenBarrierError:
            return -1.0
        return value

    executor = executors(many)
    assert list(executor.map(CFunction.of(Double(lambda value: value)), [1.0, 2.0]).values) == [1.0, 2.0]
    function = dataclasses.replace(CFunction.of(Double(waits)), blocks=True)
    assert list(executor.map(function, [3.0] * many).values) == [3.0] * many
