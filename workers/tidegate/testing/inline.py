"""A worker inside this process: everything of a real one but Celery's consumer and the supervisor.

Items, results and errors go through the ledger in wire form, and limits, retries and timeouts are those of production. Only a
crash cannot be survived: it would take the test with it (use ``WorkerProcess``).
"""

from __future__ import annotations

import contextlib
import logging
import queue as queues
import socket
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.embedded import EmbeddedServer
from tidegate.errors import TidegateError
from tidegate.model.job import Progress
from tidegate.worker.assembly import Assembly
from tidegate.worker.tickets import BadTicket, parse_ticket

if TYPE_CHECKING:
    from tidegate.app import Tidegate

log = logging.getLogger("tidegate.testing")

_POLL_S = 0.05
#: A worker in a test looks after lost leases and delayed batches more often than one in production.
_SWEEP_S = 0.1


class InProcessWorker(Assembly):
    """``start`` and ``stop``, or ``with``. ``queue_names``: the queues to read; default: those of the tasks."""

    def __init__(self, gate: Tidegate, queue_names: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tidegate-inline-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        settings = gate.settings.model_copy(update={"sweep_s": _SWEEP_S})
        arguments = Namespace(
            name=f"{socket.gethostname()}-inline",
            queues=queue_names,
            restarts=0,
            held=folder / "held",
            journal=folder / "journal",
            outcomes=folder / "outcomes",
        )
        super().__init__(
            gate, settings, arguments, replace=lambda reason: log.warning("the worker is unwell: %s", reason)
        )
        self._gate = gate
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, args=(name,), name="tidegate-inline", daemon=True)
            for name in self.queues
            for _ in range(settings.slots)
        ]

    def start(self) -> None:
        """Begin to work on tickets."""
        self.agent.start()
        self.keeper.start()
        for ticker in self._tickers:
            ticker.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let running batches end for the grace period, hand back the rest, leave no thread behind. May be repeated."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.gate.drain()
        for work in self.keeper.works():
            work.stop_starting()
        deadline = time.monotonic() + self.settings.grace_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.hand_back()
        self.gate.drain(hurry=True)
        for ticker in self._tickers:
            ticker.stop(1.0)
        self.keeper.stop()
        self.agent.stop(1.0)
        with contextlib.suppress(TidegateError):
            self.ledger.leave(self.worker)
        self.host.close(timeout_s=5.0)
        self._folder.cleanup()

    def __enter__(self) -> InProcessWorker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self, queue: str) -> None:
        """One slot: take a ticket from the broker, serve it."""
        options = {"polling_interval": _POLL_S}  # how long Redis is asked to wait, and so how soon this thread can stop
        with (
            self._gate.celery.connection_for_read(transport_options=options) as connection,
            connection.SimpleQueue(queue) as source,
        ):
            while not self._stopping.is_set():
                try:
                    message = source.get(timeout=_POLL_S)
                except queues.Empty:
                    continue
                message.ack()
                try:
                    job_id, number = parse_ticket(message.payload[0])
                except (BadTicket, TypeError, IndexError, KeyError) as error:
                    log.warning("not a ticket: %s", error)
                    continue
                self.runner.serve(job_id, number, queue)


@contextlib.contextmanager
def inline(gate: Tidegate, url: str | None = None) -> Iterator[Tidegate]:
    """Within, ``map`` returns when its job has ended, run by this process.

    ``url``: the server to use; ``None``: the one that is configured, else a private one that is gone afterwards.
    Jobs that were submitted inside are not known outside unless the server is.

    >>> from tidegate import Tidegate
    >>> gate = Tidegate()
    >>> @gate.task
    ... def double(number): return 2 * number
    >>> with inline(gate):
    ...     sorted(double.map([1, 2, 3]).results())
    [(0, 2), (1, 4), (2, 6)]
    """
    with contextlib.ExitStack() as stack:
        if url is None and gate.settings.url is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tg-"))
            url = stack.enter_context(EmbeddedServer(folder)).url
        stack.enter_context(gate.connected_to(url or gate.url, ends_with_map=True))
        stack.enter_context(InProcessWorker(gate, gate.settings.queue))
        yield gate


def drain(gate: Tidegate, *, timeout: float = 60.0) -> list[Progress]:
    """Run every job that was submitted and has not ended, in this process; how they stand then.

    ``timeout``: seconds, then ``TimeoutError``. A job that is paused, parked or not sealed is left as it is.
    """
    deadline = time.monotonic() + timeout
    # Looked up before anything runs: a job that ends at once is one of them too.
    found = [gate.job(job_id).progress() for job_id in gate.ledger().active_jobs()]
    waiting = [job for job in found if not (job.ended or job.paused or job.state.value in ("open", "parked"))]
    with InProcessWorker(gate):
        return [gate.job(stands.job_id).wait(timeout=max(0.001, deadline - time.monotonic())) for stands in waiting]
