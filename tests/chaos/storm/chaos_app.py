"""The app that the storms run: tasks that tell the witness, and tasks that end their process."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import signal
import time

from tidegate import Retry, Tidegate, current_item
from tidegate.testing.chaos import witness

#: Calls through it keep the interpreter's lock.
_libc = ctypes.PyDLL(None)


def _note() -> tuple[int, int]:
    item = current_item()
    assert item is not None
    witness.note(os.environ["CHAOS_WITNESS"], item.job_id, item.index, item.attempt)
    return item.index, item.attempt


def note(wait_ms: float) -> int:
    """Tell the witness, then take a while."""
    index, _attempt = _note()
    if wait_ms:
        time.sleep(wait_ms / 1000)
    return index


async def anote(wait_ms: float) -> int:
    """The same as a coroutine."""
    index, _attempt = _note()
    if wait_ms:
        await asyncio.sleep(wait_ms / 1000)
    return index


def _ended(index: int, attempt: int) -> None:
    """Tell another witness that the function is at its end, without letting go of the interpreter in between: an item that
    has told it has ended by the time another one's crash is noticed."""
    item = current_item()
    assert item is not None
    line = b"%b %d %d %d %d\n" % (str(item.job_id).encode(), index, attempt, os.getpid(), time.monotonic_ns())
    _libc.write(_open_ended(), line, len(line))


@functools.cache
def _open_ended() -> int:
    return os.open(os.environ["CHAOS_WITNESS"] + ".ended", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def poison(how: str) -> int:
    """Tell the witness; items that are not harmless end their process, each in its own way."""
    index, attempt = _note()
    match how:
        case "segv":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "exit":
            os._exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            _libc.sleep(3600)  # in C, with the interpreter's lock held
    _ended(index, attempt)
    return index


def flaky(fail_times: int) -> int:
    """Fail so many times, then succeed."""
    index, attempt = _note()
    if attempt <= fail_times:
        raise RuntimeError(f"attempt {attempt}")
    return index


def nothing(_number: int) -> None:
    """The least that an item can be."""


def register(gate: Tidegate) -> Tidegate:
    """Make the functions above tasks of an app: the workers' and, under the same names, the producer's."""
    gate.task(name="chaos.note", concurrency=16)(note)
    gate.task(name="chaos.anote", concurrency=64)(anote)
    gate.task(name="chaos.poison", concurrency=8, max_crashes=3, timeout=1, hard_timeout=2)(poison)
    gate.task(name="chaos.flaky", concurrency=32, retry=Retry(attempts=5, base=0.01, cap=0.05))(flaky)
    gate.task(name="chaos.nothing", concurrency=1)(nothing)
    return gate


gate = register(Tidegate())
