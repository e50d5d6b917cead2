"""TicketConsumer: the Celery worker of this process, in a thread of its own, so that the main thread keeps the signals."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery, bootsteps
from celery.app import trace
from celery.concurrency.thread import TaskPool
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu.serialization import prepare_accept_content

log = logging.getLogger(__name__)


class TicketConsumer:
    """Celery's ``WorkController`` with the threads pool. ``ready`` is called whenever it (again) consumes."""

    def __init__(self, app: Celery, name: str, slots: int, ready: Callable[[], None]) -> None:
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._controller: Any = None
        self._app = app
        self._name = name
        self._slots = slots
        app.steps["consumer"].add(_wake_step(self._wake_read, ready))
        self._thread = threading.Thread(target=self._run, name="tidegate-celery", daemon=True)

    def start(self) -> None:
        """Begin to consume; comes back at once. Reconnects for ever."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; it ends by itself only when something is badly wrong."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Consume nothing more; tickets that are at work may end."""
        state.should_stop = 0
        self._wake()

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_s)

    def reconnect(self) -> None:
        """Drop the connection to the broker and make a new one."""
        hub = getattr(self._controller, "hub", None)
        if hub is not None:
            hub.call_soon(_lost)
            self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except OSError:
            log.debug("the event loop could not be woken")

    def _run(self) -> None:
        # Before the first ticket is read: one that waits already would not be found, and lost.
        _trace_here(self._app, self._name)
        self._controller = self._app.WorkController(
            hostname=self._name,
            pool=_waking_pool(self._wake),
            consumer_cls=_Reader,
            concurrency=self._slots,
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
            task_events=False,
            beat=False,
        )
        self._controller.start()


class _Reader(Consumer):  # type: ignore[misc]
    """Celery's consumer, which comes back within a second of the broker: its own waits grow to half a minute."""

    def ensure_connected(self, conn: Any) -> Any:
        told = False

        def failed(error: Exception, _: float) -> None:
            nonlocal told
            if not told:
                told = True
                log.warning("broker does not answer, waiting for it broker=%s reason=%s", conn.as_uri(), error)

        conn.ensure_connection(
            failed, None, interval_start=0.1, interval_step=0.2, interval_max=1.0, callback=state.maybe_shutdown
        )
        if told:
            log.warning("broker answers again")
        self.first_connection_attempt = False
        return conn


def _waking_pool(wake: Callable[[], None]) -> type[TaskPool]:
    """Celery's threads pool; when a thread becomes free, the event loop is told, so that it fetches the next ticket at once."""

    class WakingPool(TaskPool):  # type: ignore[misc]
        def on_apply(self, *arguments: Any, **options: Any) -> Any:
            result = super().on_apply(*arguments, **options)
            # Celery counts the slot as free in the callback that runs inside the future, so before this one.
            result.f.add_done_callback(lambda _: wake())
            return result

    return WakingPool


def _trace_here(app: Celery, hostname: str) -> None:
    """Let the threads of the pool find the ticket task in ``app``.

    Celery's own command makes its app the default of the whole process for this. In ours, user code may use Celery apps of
    its own, which have to stay what they are.
    """
    app.finalize()
    accepted = prepare_accept_content(app.conf.accept_content)  # type: ignore[no-untyped-call]
    trace._localized[:] = [app.tasks, accepted, hostname]
    app.use_fast_trace_task = True


def _lost() -> None:
    raise ConnectionResetError("dropped by the watchdog")


def _wake_step(descriptor: int, ready: Callable[[], None]) -> type[bootsteps.StartStopStep]:
    """A part of Celery's consumer that lets other threads wake its event loop, which otherwise looks once a second."""

    def drained() -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, 512)

    class WakeStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def register_with_event_loop(self, _: Any, hub: Any) -> None:
            hub.add_reader(descriptor, drained)
            ready()

        def start(self, consumer: Any) -> None:
            if consumer.hub is None:  # a broker without an event loop
                ready()

    return WakeStep
