"""Timeouts of sync items: an interrupt where Python can be interrupted, the end of the process where it cannot."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path

from tidegate.executor.host import Host
from tidegate.executor.journal import read, read_pid
from tidegate.model.outcome import Outcome
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry

#: Less than the sixty seconds that what hangs here sleeps.
PATIENCE_S = 50.0


def spin(_value: int) -> None:
    while True:
        pass


def spin_for(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_a_spinning_item_is_interrupted(host: Host) -> None:
    run = host.lane("t", spin, TaskPolicy(timeout=0.05)).start([0])
    assert run.wait(PATIENCE_S)
    (failure,) = run.take().failures

    assert failure.outcome is Outcome.TIMED_OUT
    assert "at spin" in failure.traceback


def test_only_the_item_that_is_late_is_interrupted(host: Host) -> None:
    def work(value: int) -> int:
        if value % 5 == 0:
            spin(value)
        return value

    # The others are quick, and have half a second even where threads wait for a core.
    run = host.lane("t", work, TaskPolicy(concurrency=4, timeout=0.5)).start(list(range(20)))
    assert run.wait(PATIENCE_S)
    settled = run.take()

    assert settled.ok_positions == [value for value in range(20) if value % 5]
    assert {failure.outcome for failure in settled.failures} == {Outcome.TIMED_OUT}


def test_an_interrupt_that_comes_too_late_hits_nobody(host: Host) -> None:
    """Items that end just around their timeout, many times: each succeeds or times out, and none fails otherwise."""

    def work(value: int) -> int:
        until = time.monotonic() + 0.0015 + (value % 10) * 0.0001
        while time.monotonic() < until:
            pass
        return value

    run = host.lane("t", work, TaskPolicy(concurrency=2, timeout=0.002)).start(list(range(300)))
    assert run.wait(PATIENCE_S)
    settled = run.take()

    assert set(settled.outcomes) <= {Outcome.SUCCEEDED, Outcome.TIMED_OUT}
    assert all(
        settled.ok_values[place] == position for place, position in enumerate(settled.ok_positions or range(300))
    )


def test_an_item_that_swallows_the_interrupt_and_returns_has_succeeded(host: Host) -> None:
    def stubborn(value: int) -> int:
        with contextlib.suppress(TimeoutError):
            spin(value)
        return value

    run = host.lane("t", stubborn, TaskPolicy(timeout=0.05)).start([3])
    assert run.wait(PATIENCE_S)

    assert run.take().ok_values == [3]


def test_an_interrupt_comes_again_a_timeout_after_it_struck_not_after_it_was_sent(host: Host) -> None:
    """Who was in C until long after the timeout has its time to clean up, too."""
    struck: list[int] = []

    def work(value: int) -> None:
        try:
            time.sleep(1.0 + value * 0.08)  # the interrupt waits meanwhile
            spin_for(PATIENCE_S)
        finally:
            try:
                spin_for(0.1)
            except TimeoutError:
                struck.append(value)
                raise

    lane = host.lane("t", work, TaskPolicy(concurrency=1, timeout=0.5))
    run = lane.start(list(range(8)))
    assert run.wait(PATIENCE_S)

    assert run.take().outcomes == {Outcome.TIMED_OUT: 8}
    assert struck == []


def test_an_item_that_swallowed_its_interrupt_may_wait_for_others(host: Host) -> None:
    def takes_a_while(value: int) -> int:
        time.sleep(0.2)  # longer than a waiting thread takes to look for its own interrupt
        return value

    inner = host.lane("inner", takes_a_while, TaskPolicy())
    found: list[list[int]] = []

    def outer(_value: int) -> None:
        with contextlib.suppress(TimeoutError):
            spin_for(PATIENCE_S)
        run = inner.start([1, 2])
        run.wait(None)
        found.append(run.take().ok_values)

    run = host.lane("outer", outer, TaskPolicy(timeout=3)).start([0])
    assert run.wait(PATIENCE_S)

    assert run.take().outcomes == {Outcome.SUCCEEDED: 1}
    assert found == [[1, 2]]


def test_an_interrupt_while_the_last_item_is_cleared_away_is_a_timeout_of_the_next(host: Host) -> None:
    """What an item left in its context goes when the next one begins, and may take long; that one may be retried."""
    left: ContextVar[object] = ContextVar("left")

    class Left:
        __del__ = functools.partial(time.sleep, 1.0)

    def work(value: int) -> int:
        if value == 0:
            left.set(Left())
        return value

    run = host.lane("t", work, TaskPolicy(concurrency=1, timeout=0.2)).start([0, 1, 2])
    assert run.wait(PATIENCE_S)

    assert set(run.take().outcomes) <= {Outcome.SUCCEEDED, Outcome.TIMED_OUT}


def test_an_item_that_waits_for_other_items_is_interrupted_there(host: Host) -> None:
    shut = host.limit("shut", concurrency=1, supplied=True)
    inner = host.lane("inner", lambda value: value, TaskPolicy(), limits=[shut])

    def outer(value: int) -> None:
        inner.start([value]).wait(None)

    run = host.lane("outer", outer, TaskPolicy(timeout=0.1)).start([0])
    assert run.wait(PATIENCE_S)

    assert run.take().outcomes == {Outcome.TIMED_OUT: 1}


def test_timeouts_are_retried_unless_the_policy_says_otherwise(host: Host) -> None:
    once = Retry(attempts=2, base=0, not_on=(TimeoutError,))
    run = host.lane("t", spin, TaskPolicy(timeout=0.03, retry=once)).start([0])
    assert run.wait(PATIENCE_S)
    assert run.take().executions == 1

    run = host.lane("u", spin, TaskPolicy(timeout=0.03, retry=Retry(attempts=2, base=0))).start([0])
    assert run.wait(PATIENCE_S)
    assert run.take().executions == 2


STUCK = """
import ctypes, sys
from pathlib import Path
from tidegate.executor.host import Host
from tidegate.model.policy import TaskPolicy

libc = ctypes.PyDLL(None)  # keeps the GIL while it runs

def stuck(value):
    libc.sleep(60)

host = Host(journal=Path(sys.argv[1]))
lane = host.lane("t", stuck, TaskPolicy(timeout=0.1, hard_timeout=0.3))
run = lane.start([0, 1, 2], skip=bytes([0b011]), tag=b"0123456789abcdef")
run.wait(None)
"""


def test_an_item_stuck_in_c_with_the_gil_ends_the_process_and_is_named_in_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(journal)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == 86, done.stderr
    assert "past its hard timeout" in done.stderr
    assert "in stuck" in done.stderr
    (entry,) = read(journal)
    assert (entry.tag, entry.position, entry.attempt) == (b"0123456789abcdef", 2, 1)


FAULTY_DUMP = """
import ctypes, signal
from tidegate.executor.host import Host
from tidegate.model.policy import TaskPolicy

libc = ctypes.CDLL(None)  # lets go of the GIL: other threads change the frames that are dumped
libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
lane = Host().lane("t", lambda value: libc.sleep(60), TaskPolicy(hard_timeout=0.3))
libc.signal(signal.SIGRTMIN + 7, ctypes.cast(libc.strlen, ctypes.c_void_p))  # faults at once: a signal is no text
lane.start([0]).wait(None)
"""


def test_a_fault_while_stacks_are_written_does_not_change_how_the_process_ends() -> None:
    """They are read while other threads run on, which may go wrong."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTY_DUMP], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == 86, done.stderr
    assert "past its hard timeout" in done.stderr


STUBBORN = """
import asyncio
from tidegate.executor.host import Host
from tidegate.model.policy import TaskPolicy

async def stubborn(value):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

Host().lane("t", stubborn, TaskPolicy(timeout=0.05, hard_timeout=0.2)).start([0]).wait(None)
"""


def test_a_coroutine_that_refuses_to_be_cancelled_ends_the_process_at_its_hard_timeout() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUBBORN], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == 86, done.stderr


def test_the_journal_names_what_runs_now(tmp_path: Path) -> None:
    here, go_on = threading.Semaphore(0), threading.Event()
    journal = tmp_path / "journal"

    def work(_value: int) -> None:
        here.release()
        go_on.wait(PATIENCE_S)

    with Host(journal=journal) as host:
        run = host.lane("t", work, TaskPolicy(concurrency=2)).start([0, 1, 2], tag=b"x" * 16)
        for _ in range(2):
            assert here.acquire(timeout=PATIENCE_S)
        entries = read(journal)
        go_on.set()
        assert run.wait(PATIENCE_S)

        assert sorted(entry.position for entry in entries) == [0, 1]
        assert {entry.tag for entry in entries} == {b"x" * 16}
        assert read(journal) == []
        import os

        assert read_pid(journal) == os.getpid()
    assert not journal.exists()


STARTS_THREADS = """
import sys, threading, time
from tidegate.executor import Executor
from tidegate.model.outcome import Outcome

heard = []
sys.unraisablehook = threading.excepthook = heard.append

def starts_threads(number):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        threading.Thread(target=int).start()

with Executor(concurrency=1, timeout=0.01) as executor:
    outcomes = executor.map(starts_threads, range(60))
print(outcomes.counts() == {Outcome.TIMED_OUT: 60}, heard)
"""


def test_a_timeout_hits_its_item_and_not_the_thread_that_it_is_starting() -> None:
    """In Python 3.11 the state of a new thread has its parent's id until it runs: it died of the timeout, and the item hung."""
    done = subprocess.run(
        [sys.executable, "-c", STARTS_THREADS], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.stdout == "True []\n", done.stdout + done.stderr
