"""Single calls: ``task.submit(…).result()``. Calls made close together travel as one batch, and nobody waits for company.

The calls of one task travel in a job that stays open. A *writer* thread appends all calls that have come in while it was
writing the last ones: alone, a call leaves at once; under load, batches grow by themselves. A *reader* thread follows the
job's results and dead letters and answers the calls. After some thousand calls, or when there were none for a while, the job
is sealed and a new one is opened by the next call, so that no job grows without bound and every job ends.

Locks: ``_lock`` guards the lists and the counters of a stream; it is never held while the ledger or user code is called.
Fork: the threads are the parent's; ``CallStreams`` gives a child streams of its own.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import msgspec

from tidegate.errors import (
    ExecutorClosed,
    JobFailed,
    LedgerError,
    LedgerFull,
    LedgerUnavailable,
    PayloadTooLarge,
    TidegateError,
)
from tidegate.ledger.port import Cursor, Ledger
from tidegate.model.job import BatchPayload, JobSpec
from tidegate.model.outcome import FailureRecord, Outcome
from tidegate.model.signing import NO_KEYS, Keyring
from tidegate.model.wire import Shape, decode_results, encode_items
from tidegate.producer.encoding import signed
from tidegate.producer.flow import Flow, SendTickets, SubmissionStopped

V = TypeVar("V")

_log = logging.getLogger("tidegate.producer")

#: Calls in one job, and seconds without a call, after which it is sealed.
_CALLS_PER_JOB = 10_000
_IDLE_S = 5.0
#: Calls that are written together are spread over this many batches at least, and a batch has no more than so many.
_SPREAD = 8
_LARGEST_BATCH = 256
_BLOCK_MS = 500
#: Between two tries while the ledger is away.
_RETRY_S = 0.25


class Call(Future[V], Generic[V]):
    """The answer to one call, which may not be there yet: a ``concurrent.futures.Future``.

    ``result(timeout)`` returns the value; it raises ``JobFailed`` if the item did not succeed (its facts hold the error's type,
    the trace and the attempts) and ``TimeoutError`` after ``timeout`` seconds.
    """

    job_id: str = ""
    index: int = -1

    def cancel(self) -> bool:
        """A call that is on its way cannot be taken back."""
        return False


class CallStream:
    """One open job and its calls, from the first call to the last answer. ``ended`` is called once, when it takes no more."""

    def __init__(
        self, ledger: Ledger, spec: JobSpec, send: SendTickets, *, max_batch_bytes: int, keyring: Keyring = NO_KEYS
    ) -> None:
        self._ledger = ledger
        self._spec = spec
        self._flow = Flow(ledger, spec, send)
        self._max_batch_bytes = max_batch_bytes
        self._keyring = keyring
        self._lock = threading.Condition()
        self._waiting: list[tuple[Call[Any], msgspec.Raw]] = []
        self._open_calls: dict[int, Call[Any]] = {}
        self._accepted = 0
        self._sealing = False
        self._sealed = threading.Event()
        self._written = threading.Event()
        threading.Thread(target=self._write_all, name="tidegate-calls-out", daemon=True).start()
        threading.Thread(target=self._read_all, name="tidegate-calls-in", daemon=True).start()

    def submit(self, item: msgspec.Raw) -> Call[Any] | None:
        """Take one call; ``None`` when this stream takes no more."""
        call: Call[Any] = Call()
        call.job_id = self._spec.job_id
        with self._lock:
            if self._sealing or self._accepted >= _CALLS_PER_JOB:
                return None
            call.index = self._accepted
            self._accepted += 1
            self._waiting.append((call, item))
            self._open_calls[call.index] = call
            self._lock.notify()
        return call

    def seal(self, timeout_s: float) -> None:
        """Take no more calls, write those that were taken, and seal the job."""
        with self._lock:
            self._sealing = True
            self._lock.notify()
        self._sealed.wait(timeout_s)

    def fail_all(self, error: TidegateError) -> None:
        """Answer every call that has no answer yet."""
        with self._lock:
            left, self._open_calls = list(self._open_calls.values()), {}
            self._waiting.clear()
            self._sealing = True
            self._lock.notify()
        for call in left:
            call.set_exception(error)

    # -- writer ------------------------------------------------------------------------------------------------
    def _write_all(self) -> None:
        try:
            self._ledger.open(self._spec)
            self._written.set()
            chunk = first_index = 0
            while batches := self._next_batches():
                numbered = []
                for batch in batches:
                    numbered.append(signed(self._keyring, self._spec, first_index, batch))
                    first_index += batch.items
                self._flow.append(chunk, numbered)
                chunk += 1
            self._ledger.seal(self._spec.job_id, chunk)
        except SubmissionStopped:
            self.fail_all(_cancelled(self._spec.job_id))
        except TidegateError as error:
            self.fail_all(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever for an answer
            _log.exception("calls of job %s could not be written", self._spec.job_id)
            self.fail_all(LedgerError(f"calls could not be written: {error!r}"))
        finally:
            self._written.set()
            self._sealed.set()

    def _next_batches(self) -> list[BatchPayload]:
        """What has come in meanwhile, encoded; an empty list when the job is to be sealed."""
        with self._lock:
            while not self._waiting:
                full = self._accepted >= _CALLS_PER_JOB
                if self._sealing or full or not self._lock.wait(_IDLE_S):
                    self._sealing = True
                    if not self._waiting:  # a call may have come in just when the patience ended
                        return []
            taken, self._waiting = self._waiting, []
        items = [item for _, item in taken]
        size = max(1, min(_LARGEST_BATCH, len(items) // _SPREAD))
        batches = []
        for start in range(0, len(items), size):
            part = items[start : start + size]
            try:
                batches.append(BatchPayload(len(part), encode_items(part, Shape.CALL, max_bytes=self._max_batch_bytes)))
            except PayloadTooLarge:  # together; each alone was within the limit when it was taken
                batches += [
                    BatchPayload(1, encode_items([item], Shape.CALL, max_bytes=self._max_batch_bytes)) for item in part
                ]
        return batches

    # -- reader ------------------------------------------------------------------------------------------------
    def _read_all(self) -> None:
        self._written.wait()
        results, failures, ended = Cursor(), Cursor(), False
        while self._expects_answers():
            try:
                blocks, results, records, failures = self._ledger.read_outcomes(
                    self._spec.job_id, results, failures, block_ms=None if ended else _BLOCK_MS
                )
                if not blocks and not records:
                    if ended:  # what has no outcome of its own by now was cancelled with the job
                        self.fail_all(_cancelled(self._spec.job_id))
                    ended = self._ledger.progress(self._spec.job_id).ended
            except (LedgerUnavailable, LedgerFull) as error:
                _log.warning("waiting for answers of job %s: %s", self._spec.job_id, error)
                time.sleep(_RETRY_S)
            except TidegateError as error:
                self.fail_all(error)
            else:
                self._answer(blocks, records)

    def _expects_answers(self) -> bool:
        with self._lock:
            return bool(self._open_calls) or not self._sealed.is_set()

    def _answer(self, blocks: list[bytes], records: list[FailureRecord]) -> None:
        values = [pair for block in blocks for pair in decode_results(block)]
        with self._lock:
            good = [(self._open_calls.pop(index, None), value) for index, value in values]
            bad = [(self._open_calls.pop(record.index, None), record) for record in records]
        for call, value in good:
            if call is not None:
                call.set_result(value)
        traces = self._ledger.traces(self._spec.job_id) if bad else {}
        for call, record in bad:
            if call is not None:
                call.set_exception(_failed(call, record, traces.get(record.fingerprint, "")))


class CallStreams:
    """The streams of one app by task, made when they are first needed. ``open_stream``: makes one for a task's name."""

    def __init__(self, open_stream: Callable[[str], CallStream]) -> None:
        self._open_stream = open_stream
        self._lock = threading.Lock()
        self._streams: dict[str, CallStream] = {}
        self._pid = os.getpid()
        _all.add(self)

    def submit(self, task: str, item: msgspec.Raw) -> Call[Any]:
        """Hand a call to the task's stream."""
        while True:
            with self._lock:
                if self._pid != os.getpid():
                    self._streams, self._pid = {}, os.getpid()
                stream = self._streams.get(task)
                if stream is None:
                    stream = self._streams[task] = self._open_stream(task)
            call = stream.submit(item)
            if call is not None:
                return call
            with self._lock:
                if self._streams.get(task) is stream:
                    del self._streams[task]

    def seal(self, timeout_s: float = 5.0) -> list[CallStream]:
        """Write every call that was taken and seal the jobs; the streams, whose answers still come."""
        with self._lock:
            streams, self._streams = list(self._streams.values()), {}
        if self._pid != os.getpid():
            return []
        for stream in streams:
            stream.seal(timeout_s)
        return streams

    def close(self) -> None:
        """Seal, and wait for no more answers."""
        for stream in self.seal():
            stream.fail_all(ExecutorClosed("the app was closed before the answer came", remedy="read the result first"))


_all: weakref.WeakSet[CallStreams] = weakref.WeakSet()


@atexit.register
def _seal_at_exit() -> None:
    """A script that ends right after ``submit`` has submitted."""
    for streams in list(_all):
        streams.seal()


def _cancelled(job_id: str) -> JobFailed:
    return JobFailed(
        f"the call was cancelled with its job {job_id}",
        remedy="submit it again",
        job_id=job_id,
        outcome=Outcome.CANCELLED,
    )


def _failed(call: Call[Any], record: FailureRecord, trace: str) -> JobFailed:
    return JobFailed(
        f"{record.error_type}: {record.message}",
        remedy="see its facts: traceback, attempts",
        job_id=call.job_id,
        index=call.index,
        outcome=record.outcome,
        error_type=record.error_type,
        attempts=record.attempts,
        traceback=trace,
    )
