"""The tasks that the worker tests run, in the test's process (to submit) and in worker processes (to execute).

Each execution is noted in a file outside Redis first, so that what really ran is known whatever dies afterwards.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

from tidegate import Limit, Retry, RetryAfter, Tidegate
from tidegate.executor import current_item
from tidegate.testing.chaos.witness import note

#: Kept for ever, as a leak would.
leaked: list[bytearray] = []


def _seen() -> None:
    item = current_item()
    assert item is not None
    assert item.job_id is not None
    note(os.environ["WITNESS"], item.job_id, item.index, item.attempt)


def _ended() -> None:
    """Tell another witness that the function is at its end, without letting go of the interpreter in between: who waits to get
    it back has told of its end, and is struck before it returns."""
    item = current_item()
    assert item is not None
    assert item.job_id is not None
    line = b"%b %d %d %d %d\n" % (item.job_id.encode(), item.index, item.attempt, os.getpid(), time.monotonic_ns())
    ctypes.PyDLL(None).write(_open_ended(), line, len(line))


@functools.cache
def _open_ended() -> int:
    return os.open(os.environ["WITNESS"] + ".ended", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def double(number: int) -> int:
    _seen()
    return 2 * number


def nap(seconds: float) -> float:
    _seen()
    time.sleep(seconds)
    return seconds


async def async_nap(seconds: float) -> float:
    _seen()
    await asyncio.sleep(seconds)
    return seconds


def every_third_fails(number: int) -> int:
    _seen()
    if number % 3 == 0:
        raise ValueError(f"{number} is not wanted")
    return number


def fails_until(path: str, attempt: int) -> int:
    """Fails until its ``attempt``-th execution, by its own count of attempts."""
    _seen()
    item = current_item()
    assert item is not None
    if item.attempt < attempt:
        raise ConnectionError(f"not yet at {path}")
    return item.attempt


def odd_results(kind: str) -> Any:
    """Results that can be stored, and results that cannot."""
    _seen()
    match kind:
        case "object":
            return object()
        case "large":
            return b"x" * 300_000
        case "spiteful":
            return _Spiteful()
        case _:
            return kind


class _Spiteful:
    """Cannot be encoded, and raises when it is looked at."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr either")


def killer(number: int) -> int:
    """13 dies of a signal, 17 leaves by the back door."""
    _seen()
    if number == 13:
        ctypes.string_at(0)
    if number == 17:
        os._exit(3)
    return number


def stuck(number: int) -> int:
    """3 holds the interpreter for ever, where no Python code can interrupt it."""
    _seen()
    if number == 3:
        ctypes.PyDLL(None).sleep(600)
    return number


def leaky(megabytes: int) -> int:
    _seen()
    leaked.append(bytearray(os.urandom(1)) * (megabytes << 20))
    return megabytes


def kill_own_supervisor(number: int) -> int:
    _seen()
    if number == 0:
        os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(0.02)
    return number


def wait_for_file(path: str) -> str:
    _seen()
    while not Path(path).exists():
        time.sleep(0.01)
    return path


async def await_file(path: str) -> str:
    _seen()
    while not Path(path).exists():
        await asyncio.sleep(0.01)
    return path


def nap_until_file(path: str) -> str:
    """A nap, and none once the file is there: a job that is long while a test needs it, and then is over."""
    _seen()
    if not Path(path).exists():
        time.sleep(0.05)
    return path


def kill_after_file(path: str) -> str:
    """Ends its process as the kernel would, once the file is there."""
    wait_for_file(path)
    os.kill(os.getpid(), signal.SIGKILL)
    return path


def visit(address: str, seconds: float = 0.01) -> str:
    """Notes when it was where, in one line each; the file is the witness of limits by key."""
    _seen()
    host = host_of(address)
    _line(f"+ {host} {time.monotonic_ns()} {os.getpid()}")
    try:
        told = Path(os.environ["WITNESS"] + f".told-{host}")
        if told.exists():
            told.unlink(missing_ok=True)
            raise RetryAfter(5.0)
        time.sleep(seconds)
    finally:
        _line(f"- {host} {time.monotonic_ns()} {os.getpid()}")
    return host


def _line(text: str) -> None:
    descriptor = os.open(os.environ["WITNESS"] + ".visits", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)


def host_of(address: str, seconds: float = 0.0) -> str | None:
    """The key of an address; one that names no host has none, one that is odd is refused."""
    if address.startswith("odd:"):
        raise ValueError(f"{address} is odd")
    return address.split("/", maxsplit=1)[0] or None


def _mixed(item: Any) -> list[Any]:
    if isinstance(item, int) and item % 7 == 3:
        raise ValueError(f"{item} is not wanted")
    return ["seen", item]


def mixed(item: Any) -> list[Any]:
    """A path waits until its file is there; some numbers fail."""
    _seen()
    while isinstance(item, str) and not Path(item).exists():
        time.sleep(0.01)
    return _mixed(item)


async def amixed(item: Any) -> list[Any]:
    _seen()
    await asyncio.sleep(0.001)
    while isinstance(item, str) and not Path(item).exists():
        await asyncio.sleep(0.01)
    return _mixed(item)


def villain(how: str) -> str:
    """Runs beside others that take their time; ends the process in one way or another."""
    _seen()
    match how:
        case "segv":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "exit":
            os._exit(3)
        case "killed":  # as by the kernel when memory is out: nothing of the process gets a last word
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            time.sleep(0.05)
    _ended()
    return how


async def avillain(how: str) -> str:
    await asyncio.sleep(0.001)
    if how == "harmless":
        _seen()
        await asyncio.sleep(0.05)
        _ended()
        return how
    return villain(how)


def register(gate: Tidegate) -> Tidegate:
    """Give ``gate`` all of them."""

    def asks_another(path: str) -> int:
        """Waits for an item of another job, which the same process may have to run."""
        wait_for_file(path)
        return int(gate.tasks["double"].submit(21).result(timeout=120))

    gate.task(name="asks_another", concurrency=2)(asks_another)
    slow_retry = Retry(attempts=3, base=0.6, jitter="none", factor=1.0)
    for function in (double, nap, every_third_fails, odd_results, leaky, kill_own_supervisor):
        gate.task(name=function.__name__, concurrency=4)(function)
    gate.task(name="async_nap", concurrency=20)(async_nap)
    gate.task(name="nap_until_file", concurrency=4)(nap_until_file)
    gate.task(name="await_file", concurrency=20)(await_file)
    gate.task(name="wait_for_file", concurrency=2)(wait_for_file)
    gate.task(name="kill_after_file", concurrency=2)(kill_after_file)
    gate.task(name="one_by_one", concurrency=1)(nap)
    gate.task(name="killer", concurrency=1)(killer)
    gate.task(name="villain", concurrency=4)(villain)
    gate.task(name="avillain", concurrency=20)(avillain)
    gate.task(name="mixed", concurrency=1)(mixed)
    gate.task(name="amixed", concurrency=1)(amixed)
    gate.task(name="stuck", concurrency=2, hard_timeout=1.0)(stuck)
    gate.task(name="fails_until", concurrency=4, retry=slow_retry, max_wait=0.1)(fails_until)
    gate.task(name="limited", concurrency=20, limits=[Limit("two", concurrency=2)])(async_nap)
    hosts = Limit("host", concurrency=2, key=host_of)
    gate.task(name="visit", concurrency=16, limits=[hosts], retry=Retry(attempts=5), max_wait=1.0)(visit)
    gate.task(name="visit_too", concurrency=16, limits=[hosts], max_wait=1.0)(visit)
    pace = Limit("pace", rate=10, burst=2, key=host_of)
    gate.task(name="pace", concurrency=16, limits=[pace], retry=Retry(attempts=5), max_wait=1.0)(visit)
    slow = Limit("slow", rate="1/m", burst=1, key=host_of)
    gate.task(name="slow", concurrency=16, limits=[slow], max_wait=0.5)(visit)
    here = Limit("here", concurrency=1, key=host_of, scope="process")
    gate.task(name="visit_here", concurrency=16, limits=[here])(visit)
    return gate
