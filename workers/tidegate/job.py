"""Job: one submitted workload, as its submitter (or anybody who knows its id) sees and steers it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from tidegate.errors import ConfigurationError
from tidegate.ledger.port import Cursor
from tidegate.model.job import Progress
from tidegate.model.outcome import Failure, FailureRecord, JobState, Outcome
from tidegate.model.wire import decode_argument, decode_results
from tidegate.progress import show_progress

if TYPE_CHECKING:
    from tidegate.app import Tidegate
    from tidegate.report import Report

V = TypeVar("V")

#: How long one question to the ledger waits for news. Ctrl-C and time limits are noticed as often.
_BLOCK_MS = 500
#: News may come by the thousand: the job is not looked at more often than this.
_SHORTEST_LOOK_S = 0.02


class Job(Generic[V]):
    """A handle: it holds no state but the id, so it may be made again anywhere with ``gate.job(id)``."""

    def __init__(self, gate: Tidegate, job_id: str) -> None:
        self.gate = gate
        self.id = job_id

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    # -- how it stands -----------------------------------------------------------------------------------------
    def progress(self) -> Progress:
        """How the job stands now, exactly. ``JobNotFound`` when it expired."""
        return self.gate.ledger().progress(self.id)

    def follow(self, timeout: float | None = None) -> Iterator[Progress]:
        """How the job stands, now and whenever it changes (at least twice a second), up to and including its end.

        ``timeout``: seconds, then ``TimeoutError`` (the job goes on).
        """
        ledger = self.gate.ledger()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            began = time.monotonic()
            stands = ledger.progress(self.id)
            yield stands
            if stands.ended:
                return
            left_s = _BLOCK_MS / 1000 if deadline is None else min(_BLOCK_MS / 1000, deadline - time.monotonic())
            if left_s <= 0:
                raise TimeoutError(f"job {self.id} has not ended after {timeout:g} s: {_why(stands)}")
            ledger.wait_event(self.id, block_ms=max(1, int(left_s * 1000)))
            if stands.done:  # the first look after the first outcome is at once: short jobs answer fast
                time.sleep(max(0.0, _SHORTEST_LOOK_S - (time.monotonic() - began)))

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> Progress:
        """Wait until every item has an outcome; how the job stands then. Items that failed raise nothing here.

        ``timeout``: seconds, then ``TimeoutError`` (the job goes on). ``progress``: draw a progress bar meanwhile. A job that
        is paused or parked does not end by itself: the bar and the ``TimeoutError`` say so.
        """
        with show_progress(self.gate) if progress else contextlib.nullcontext(_unseen) as watch:
            for stands in self.follow(timeout):
                watch(stands)
        return stands

    async def await_done(self, timeout: float | None = None) -> Progress:
        """``wait`` for coroutines."""
        return await asyncio.to_thread(self.wait, timeout)

    # -- what came out -----------------------------------------------------------------------------------------
    def results(self) -> Iterator[tuple[int, V]]:
        """``(index, value)`` of every item that succeeds, as they come in; ends when the job does. Memory stays bounded."""
        for blocks in self._result_blocks():
            for block in blocks:
                yield from decode_results(block)

    async def aresults(self) -> AsyncIterator[tuple[int, V]]:
        """``results`` for coroutines."""
        source = self._result_blocks()
        while (blocks := await asyncio.to_thread(next, source, None)) is not None:
            for block in blocks:
                for pair in decode_results(block):
                    yield pair

    def _result_blocks(self) -> Iterator[list[bytes]]:
        ledger = self.gate.ledger()
        stands = ledger.progress(self.id)
        if stands.spec is not None and not stands.spec.keep_results:
            raise ConfigurationError(
                f"job {self.id} keeps no results", remedy="submit it with keep_results=True to read values"
            )
        cursor = Cursor()
        while True:
            # Asked before reading: whatever was committed until the end is then seen by the reads that follow.
            ended = stands.ended
            blocks, cursor = ledger.read_results(self.id, cursor, block_ms=None if ended else _BLOCK_MS)
            if blocks:
                yield blocks
            elif ended:
                return
            else:
                stands = ledger.progress(self.id)

    def failures(self) -> Iterator[Failure]:
        """The dead letters so far: index, outcome, error, arguments, attempts, and the trace of the last attempt."""
        ledger = self.gate.ledger()
        traces: dict[str, str] = {}
        for record in ledger.read_failures(self.id):
            if record.fingerprint not in traces:
                traces = ledger.traces(self.id)
                traces.setdefault(record.fingerprint, "")
            yield _failure(record, traces[record.fingerprint])

    def errors(self) -> dict[str, int]:
        """How many items ended with which type of error."""
        return self.gate.ledger().errors(self.id)

    def report(self) -> Report:
        """The report so far: ``print`` it, show it in a notebook, or use its ``to_html()`` and ``to_json()``."""
        from tidegate import report
        from tidegate.collector.source import StreamSource

        with closing(StreamSource(self.gate.url)) as telemetry:
            soft = self.gate.settings.memory_soft
            return report.build(self.gate.ledger(), self.id, telemetry, memory_soft=soft)

    # -- steering ----------------------------------------------------------------------------------------------
    def cancel(self, reason: str = "") -> Progress:
        """Start nothing more; what is pending ends as cancelled, what runs is asked to stop. May be repeated."""
        return self.gate.ledger().cancel(self.id, reason)

    def pause(self) -> Progress:
        """Hand out no more batches until ``resume``; what runs goes on."""
        return self.gate.ledger().pause(self.id)

    def resume(self) -> Progress:
        """Undo a pause, or a parking once its reason is gone."""
        stands, tickets = self.gate.ledger().resume(self.id)
        if tickets:
            self.gate.send_tickets(stands.queue, self.id, tickets)
        return stands

    def replay(
        self,
        *,
        error_type: str | None = None,
        outcome: Outcome | str | None = None,
        indexes: Iterable[int] | None = None,
    ) -> Job[V]:
        """Submit the failed items again as a new job, linked to this one (``replay_of``).

        Without arguments all of them; else those of one ``error_type`` (as in ``errors()``), one ``outcome``, or the
        given ``indexes``. Asking again for the same selection gives the same new job. ``ConfigurationError`` while this
        job is not at its end. Item ``n`` of the new job is the ``n``-th selected failure, in the order of ``failures()``.
        """
        ledger = self.gate.ledger()
        stands = ledger.progress(self.id)
        if not stands.ended or stands.spec is None:
            raise ConfigurationError(
                f"job {self.id} has not ended, so what failed is not known yet", remedy="wait for it, or cancel it"
            )
        chosen = None if indexes is None else frozenset(indexes)
        kind = None if outcome is None else Outcome(outcome)

        def arguments() -> Iterator[msgspec.Raw]:
            for record in ledger.read_failures(self.id):
                if (
                    (error_type is None or record.error_type == error_type)
                    and (kind is None or record.outcome is kind)
                    and (chosen is None or record.index in chosen)
                ):
                    yield msgspec.Raw(record.arguments)  # it is encoded already: sent on unread

        selection = repr((self.id, error_type, kind and kind.value, sorted(chosen) if chosen is not None else None))
        name = "replay " + hashlib.sha256(selection.encode()).hexdigest()
        return self.gate.resubmit(stands.spec, arguments(), name)


def _unseen(stands: Progress) -> None:
    """Where no progress bar is wanted."""


def _why(stands: Progress) -> str:
    """Why a job is not at its end."""
    if stands.state is JobState.PARKED:
        return f"it is parked: {stands.reason}"
    if stands.paused:
        return "it is paused"
    return f"{stands.pending} items are pending"


def _failure(record: FailureRecord, trace: str) -> Failure:
    return Failure(
        index=record.index,
        outcome=record.outcome,
        error_type=record.error_type,
        message=record.message,
        attempts=record.attempts,
        arguments=decode_argument(record.arguments),
        traceback=trace,
        fingerprint=record.fingerprint,
        history=record.history,
    )
