"""Fork, interpreter exit, signals, re-entry, sub-interpreters."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from tidegate.errors import ExecutorClosed
from tidegate.executor import _native
from tidegate.executor.executor import Executor
from tidegate.executor.host import Host
from tidegate.model.outcome import Outcome
from tidegate.model.policy import TaskPolicy

PATIENCE_S = 60.0


async def coroutine(value: int) -> int:
    return value


def python(code: str, *options: str, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def test_a_forked_child_is_told_and_does_not_hang(host: Host) -> None:
    lane = host.lane("t", lambda value: value, TaskPolicy())
    lane.start([1]).wait(PATIENCE_S)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            lane.start([2])
            answer = b"started"
        except ExecutorClosed as error:
            answer = str(error).encode()
        closed = host.close(timeout_s=1)
        os.write(write_end, answer + (b" closed" if closed else b""))
        os._exit(0)
    os.close(write_end)
    answer = os.read(read_end, 500)
    os.waitpid(child, 0)

    assert b"forked from" in answer
    assert answer.endswith(b" closed")
    assert lane.start([3]).wait(PATIENCE_S)


def test_a_child_may_make_a_host_of_its_own(host: Host) -> None:
    host.lane("t", lambda value: value, TaskPolicy()).start([1]).wait(PATIENCE_S)
    child = os.fork()
    if child == 0:
        with Host() as own:
            run = own.lane("t", lambda value: value, TaskPolicy()).start([1, 2, 3])
            os._exit(0 if run.wait(PATIENCE_S) and run.take().ok_values == [1, 2, 3] else 1)
    _pid, status = os.waitpid(child, 0)

    assert status == 0


def test_forking_while_items_run_hurts_neither_side(host: Host) -> None:
    run = host.lane("t", lambda value: sum(range(value)), TaskPolicy(concurrency=4)).start([50] * 20_000)
    for _ in range(20):
        child = os.fork()
        if child == 0:
            with pytest.raises(ExecutorClosed):
                host.core.check()
            os._exit(7)
        _pid, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7

    assert run.wait(PATIENCE_S)
    assert run.take().count == 20_000


EXIT = """
import asyncio, sys, threading, time
from tidegate.executor.host import Host
from tidegate.model.policy import TaskPolicy

async def tick(value):
    await asyncio.sleep(0.001)

def work(value):
    time.sleep(0.0005)

host = Host()
policy = TaskPolicy(concurrency=4, timeout=5)
host.lane("sync", work, policy).start([0] * 10_000)
host.lane("async", tick, policy).start([0] * 10_000)
host.lane("spin", lambda value: sum(range(200)), policy).start([0] * 100_000)
if sys.argv[1] == "waiting":
    threading.Thread(target=lambda: host.lane("w", work, policy).start([0] * 10_000).wait(None)).start()
time.sleep(float(sys.argv[2]))
if sys.argv[1] == "raise":
    raise SystemExit(5)
"""


@pytest.mark.parametrize("how", ["fall-off", "raise", "waiting"])
@pytest.mark.parametrize("delay_s", [0.0, 0.003, 0.02])
def test_the_interpreter_exits_in_the_middle_of_work(how: str, delay_s: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT, how, str(delay_s)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == (5 if how == "raise" else 0), done.stderr
    assert done.stderr == ""


INTERRUPTED = """
import time
from tidegate.executor.executor import Executor

begun = []

def item(number):
    begun.append(number)
    if number == 0:
        print("ready", flush=True)
    time.sleep(0.05)

executor = Executor(concurrency=2)
try:
    executor.map(item, range(1000))
except KeyboardInterrupt:
    print("interrupted", flush=True)
executor.close()
print(len(begun), flush=True)
"""


def test_ctrl_c_ends_a_wait_promptly() -> None:
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    begun = int(process.stdout.readline())
    process.stdout.close()

    assert process.wait(PATIENCE_S) == 0
    # Counted in items and not in seconds: two naps of 50 ms at a time take 25 s for all of them, on any machine at least.
    assert begun < 500


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("role", ["serve", "interrupt"])
def test_ctrl_c_while_a_thread_is_being_started_is_not_lost(
    role: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's thread starts those of the executor, in Python: what a signal's handler raises there is the caller's."""
    original, struck, begun = threading.Thread.start, [], []

    def start(thread: threading.Thread) -> None:
        strikes = not struck and role in thread.name
        if strikes:
            struck.append(thread)  # now: the new thread may itself start another
        if strikes and moment == "before":
            signal.raise_signal(signal.SIGINT)
        original(thread)
        if strikes:
            signal.raise_signal(signal.SIGINT)

    def item(value: int) -> int:
        begun.append(value)
        time.sleep(0.01)
        return value

    def spin(_: int) -> None:
        given_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < given_up:
            pass

    monkeypatch.setattr(threading.Thread, "start", start)
    with Executor(concurrency=2, timeout=2) as executor:
        with pytest.raises(KeyboardInterrupt):
            executor.map(item, range(1000))
        assert struck
        assert len(begun) < 1000
        assert executor.map(item, range(3)).values == [0, 1, 2], "and it goes on working"
        assert executor.map(spin, [1]).failures[0].outcome is Outcome.TIMED_OUT, "whoever ends items was started"
    assert not [thread for thread in struck if thread.is_alive()]


def test_items_may_submit_items_and_wait_for_them(executors: Callable[..., Executor]) -> None:
    executor = executors(8)

    def leaf(value: int) -> int:
        return value * 2

    def parent(value: int) -> int:
        return sum(
            executor.host.lane(f"leaf-{value}", leaf, TaskPolicy()).start([value, 1]).wait(PATIENCE_S) for _ in range(2)
        )

    assert executor.map(parent, [1, 2, 3]).values == [2, 2, 2]


def test_many_threads_share_one_executor(executors: Callable[..., Executor]) -> None:
    executor = executors(16)
    found: dict[int, list[int]] = {}

    def use(number: int) -> None:
        found[number] = executor.map(lambda value: value + number, range(500)).values

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert found == {number: [value + number for value in range(500)] for number in range(8)}


SUBINTERPRETER = '''
try:
    import _xxsubinterpreters as interpreters
except ImportError:
    import _interpreters as interpreters
import sys
ident = interpreters.create()
code = f"""
import sys
sys.path[:] = {sys.path!r}
try:
    import tidegate.executor._native
except ImportError as error:
    print('refused:', error)
"""
interpreters.run_string(ident, code)
'''


def test_sub_interpreters_are_refused_clearly() -> None:
    done = python(SUBINTERPRETER)

    assert done.stdout.startswith("refused:"), done.stdout + done.stderr
    assert "interpreter" in done.stdout


def test_a_forgotten_host_lets_its_threads_end() -> None:
    before = set(threading.enumerate())
    host: Host | None = Host()
    assert host is not None
    host.lane("t", lambda value: value, TaskPolicy(timeout=9)).start([1]).wait(PATIENCE_S)
    host.lane("a", coroutine, TaskPolicy()).start([1]).wait(PATIENCE_S)
    started = set(threading.enumerate()) - before
    del host
    gc.collect()
    for thread in started:
        thread.join(PATIENCE_S)

    assert set(threading.enumerate()) <= before


def test_runs_keep_nothing_alive_once_they_are_forgotten(host: Host) -> None:
    class Token:
        pass

    lane = host.lane("t", lambda token: token, TaskPolicy())
    failing = host.lane("f", lambda token: token.missing, TaskPolicy())
    for _ in range(3):
        run = lane.start([Token() for _ in range(100)])
        run.wait(PATIENCE_S)
        run.take()
        run = failing.start([Token() for _ in range(100)])
        run.wait(PATIENCE_S)
        run.take()
    del run

    gc.disable()
    try:
        # Nothing may need the collector: no cycle through exceptions, frames or runs.
        assert not [found for found in gc.get_objects() if isinstance(found, Token)]
    finally:
        gc.enable()


def test_interrupts_need_no_gil_from_a_thread_that_was_never_python(host: Host) -> None:
    assert issubclass(_native.ItemTimeout, TimeoutError)
    run = host.lane("t", lambda _value: time.sleep(0.2), TaskPolicy(timeout=0.05)).start([0])
    assert run.wait(PATIENCE_S)

    # The interrupt is raised when the sleep returns: late, but on this item.
    assert run.take().outcomes == {Outcome.TIMED_OUT: 1}


CLOSES = """
import asyncio, faulthandler, sys
from tidegate.executor.executor import Executor
faulthandler.enable()
waits_first = sys.argv[1] == "one-by-one"

async def main():
    executor = Executor(40)

    async def item(value):
        if waits_first and value < 8:
            await asyncio.sleep(0.001)
        elif value == 8 or not waits_first:
            executor.close()
            await asyncio.sleep(0)
        return value

    outcomes = await executor.amap(item, range(30))
    print(sum(outcomes.counts().values()))

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["in-a-row", "one-by-one"])
def test_a_coroutine_may_close_the_executor_that_runs_it_in_its_first_step(how: str) -> None:
    """What was begun with it goes back, and every item still has an outcome."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSES, how], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert (done.returncode, done.stdout.strip()) == (0, "30"), done.stderr
    assert done.stderr == ""
