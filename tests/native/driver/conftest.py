"""Every test of the driver runs on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from tidegate.executor import _native

Main = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


def _asyncio_runner() -> asyncio.Runner:
    return asyncio.Runner()


def _uvloop_runner() -> asyncio.Runner:
    uvloop = pytest.importorskip("uvloop")
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


@pytest.fixture(params=[_asyncio_runner, _uvloop_runner], ids=["asyncio", "uvloop"])
def main(request: pytest.FixtureRequest) -> Iterator[Main]:
    """Runs an async function on a loop, and fails the test on whatever the loop's exception handler hears."""
    heard: list[dict[str, Any]] = []

    def run(function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        with request.param() as runner:
            runner.get_loop().set_exception_handler(lambda _loop, context: heard.append(context))
            return runner.run(asyncio.wait_for(function(), timeout=60))

    run.heard = heard  # type: ignore[attr-defined]
    yield run
    assert not heard, heard


class Recorder:
    """A driver, what it reported, and an event that is set when so many tasks have ended."""

    def __init__(self) -> None:
        self.ends: dict[int, tuple[Any, bool]] = {}
        self.driver = _native.Driver(self._settled)
        self._changed = asyncio.Event()

    def _settled(self, token: int, outcome: Any, raised: bool) -> None:
        assert token not in self.ends, "a task ended twice"
        self.ends[token] = (outcome, raised)
        self._changed.set()

    def step(self, coro: Any, token: int = 0) -> tuple[str, Any]:
        """The first step in a fresh copy of the context."""
        return self.driver.step(coro, contextvars.copy_context(), token)

    async def ended(self, count: int) -> dict[int, tuple[Any, bool]]:
        while len(self.ends) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.ends

    async def outcome(self, coro: Any) -> tuple[Any, bool]:
        """Runs one coroutine to its end: (value, False) or (exception, True)."""
        token = 1_000_000 + len(self.ends)
        how, out = self.step(coro, token)
        if how != "suspended":
            try:
                return out, how == "raised"
            finally:
                del out  # this frame is in its traceback: the two would keep each other
        del out
        while token not in self.ends:
            self._changed.clear()
            await self._changed.wait()
        return self.ends.pop(token)


@pytest.fixture
def recorder() -> type[Recorder]:
    """To be called inside the loop."""
    return Recorder
