"""LoopThread: an event loop on a thread of its own, for coroutine items of callers that have no loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from tidegate.errors import ExecutorClosed
from tidegate.executor import _native
from tidegate.executor.kinds import as_coroutine


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's when it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class LoopThread:
    """Runs a loop and a pump of ``core`` on it until :meth:`close`."""

    def __init__(self, core: _native.Core, name: str, index: int = 0) -> None:
        self._core = core
        self._index = index
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.pump: _native.Pump | None = None
        self.thread = threading.Thread(target=self._main, name=f"{name}-loop", daemon=True)
        self.thread.start()
        self._ready.wait()
        if self._error is not None:
            if isinstance(
                self._error, RuntimeError
            ):  # "can't register atexit after shutdown", "can't start new thread"
                raise ExecutorClosed(
                    "no event loop could be started", remedy="create executors earlier"
                ) from self._error
            raise self._error

    def _main(self) -> None:
        try:
            loop = new_loop()
            asyncio.set_event_loop(loop)
            loop.call_soon(self._begin, loop)
        except BaseException as error:  # noqa: BLE001 - an interpreter that ends refuses imports and much else
            self._error = error
            self._ready.set()  # whoever waits in __init__ may hold a lock that the end of the interpreter needs
            return
        try:
            loop.run_forever()
        finally:
            self._ready.set()
            try:
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.run_until_complete(loop.shutdown_default_executor())  # threads of asyncio.to_thread
            finally:
                asyncio.set_event_loop(None)
                loop.close()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self.pump = _native.Pump(self._core, loop, as_coroutine, self._index)
            self.loop = loop
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits in __init__
            self._error = error
            loop.stop()
        self._ready.set()

    def abandon(self) -> None:
        """As :meth:`close`, without waiting for it."""
        loop, pump = self.loop, self.pump
        if loop is not None and pump is not None and not loop.is_closed():
            call_soon(loop, lambda: _quiesce(loop, pump, 1.0))

    def close(self, timeout_s: float) -> bool:
        """Cancel what runs, wait for it, end the loop. False: a coroutine would not end in time and was abandoned."""
        loop, pump = self.loop, self.pump
        if loop is None or pump is None or loop.is_closed():
            return True
        if not call_soon(loop, lambda: _quiesce(loop, pump, timeout_s)):
            return False
        self.thread.join(timeout_s + 1.0)  # the loop gives up on its coroutines after timeout_s
        self.pump = None
        return not self.thread.is_alive()


def call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> bool:
    """From any thread; False: the loop is closed."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # the loop was closed meanwhile
        return False
    return True


def _quiesce(loop: asyncio.AbstractEventLoop, pump: _native.Pump, timeout_s: float) -> None:
    """Runs on the loop: cancels, looks every few milliseconds whether all ended, then stops."""
    pump.quiesce()
    deadline = loop.time() + timeout_s

    def look() -> None:
        if pump.flights and loop.time() < deadline:
            loop.call_later(0.002, look)
            return
        pump.close()
        leftovers = [task for task in asyncio.all_tasks(loop) if not task.done()]
        for task in leftovers:
            task.cancel()
        loop.call_soon(loop.stop) if not leftovers else loop.call_later(0.01, loop.stop)

    look()
