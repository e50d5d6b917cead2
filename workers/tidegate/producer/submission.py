"""One submission, from the first item to the seal. It is driven from outside, so that one code serves sync and async sources:

    skip = submission.resume()         how many items the ledger has already (None: all of them)
    size = submission.next_size()      how many items to take now
    submission.add(items)              encode them; write a chunk when one is full
    submission.finish()                write the rest and seal
    submission.confirm()               wait for the server's disk, if that was asked for

Nothing is written before the first chunk has been encoded. With an id of the user's choice the split is fixed and recorded in
the job: a producer that was killed runs again with the same items and goes on where the ledger says, and two that run at
the same time write the same chunks, of which the ledger takes each once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate.errors import JobNotFound, LedgerLost, LedgerUnavailable, SubmissionConflict, TidegateError
from tidegate.ledger.port import Ledger
from tidegate.model.job import BatchPayload, JobSpec, Progress
from tidegate.model.signing import NO_KEYS, Keyring
from tidegate.model.wire import Shape
from tidegate.producer.encoding import encode_batches, signed
from tidegate.producer.flow import Flow, SendTickets, SubmissionStopped
from tidegate.producer.liveness import Liveness
from tidegate.producer.sizing import BatchSizer

#: A chunk is one script call: bounded in bytes and batches, so that it never holds the server up for long.
CHUNK_BYTES = 1 << 20
CHUNK_BATCHES = 64
#: With a split that can be repeated age does not count, so chunks are small.
_RESUMABLE_CHUNK_BATCHES = 8
#: Items of a source that is not fast are not held back longer than this.
_CHUNK_AGE_NS = 100_000_000
#: Time between looks at what the workers have measured.
_LEARN_NS = 500_000_000
#: A server that went away while its disk was waited for may come back; after this long it is an error.
_SYNC_PATIENCE_S = 30.0
_SYNC_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionOptions:
    """``max_batch_bytes``: refuse larger batches. ``patience_s``: seconds to wait at the mark, ``None``: for ever.

    ``keyring``: signs batches, if it has keys. ``exists``: the ledger knows the job already. ``durable``: confirmed only when
    it is on the server's disk.
    """

    max_batch_bytes: int
    keyring: Keyring = NO_KEYS
    patience_s: float | None = None
    exists: bool = False
    durable: bool = False


class Submission:
    """See the module. ``resumable``: ``spec`` carries a fixed split, and its chunks may be in the ledger already."""

    def __init__(
        self, ledger: Ledger, spec: JobSpec, sizer: BatchSizer, send: SendTickets, options: SubmissionOptions
    ) -> None:
        self.spec = spec
        self.items = 0
        self._ledger = ledger
        self._sizer = sizer
        self._options = options
        self._shape = Shape(spec.shape)
        self._flow = Flow(ledger, spec, send, patience_s=options.patience_s)
        self._liveness = Liveness(ledger, spec)
        self._resumable = bool(spec.chunk_batches)
        self._exists = options.exists
        self._chunk_bytes = spec.chunk_bytes or min(CHUNK_BYTES, spec.max_pending_bytes)
        self._chunk_batches = spec.chunk_batches or min(CHUNK_BATCHES, spec.max_pending_batches)
        self._pending: list[BatchPayload] = []
        self._pending_bytes = 0
        self._pending_since_ns = 0
        self._chunks = 0
        self._next_chunk = -1  # the ledger's; -1: not opened yet
        self._last_ns = time.monotonic_ns()
        self._learned_ns = self._last_ns

    @property
    def written(self) -> bool:
        """Whether the ledger knows the job."""
        return self._next_chunk >= 0

    def resume(self) -> int | None:
        """How many items to skip, because the ledger has them; ``None`` when the submission is complete."""
        if not self._exists:
            return 0
        if self._open():
            return None
        self._chunks = self._next_chunk
        return self.items

    def next_size(self) -> int:
        """How many items the next batch shall have."""
        self._last_ns = time.monotonic_ns()
        return self._sizer.next_size()

    def add(self, items: list[Any]) -> bool:
        """Encode one batch and write what makes a full chunk. False: no more is wanted, the job was cancelled."""
        now_ns = time.monotonic_ns()
        total_bytes = 0
        batches = encode_batches(
            items,
            self._shape,
            first_index=self.items,
            max_bytes=self._options.max_batch_bytes,
            may_split=self._sizer.adaptive,
        )
        try:
            first_index = self.items
            for batch in batches:
                total_bytes += len(batch.data)
                self._hold(signed(self._options.keyring, self.spec, first_index, batch))
                first_index += batch.items
        except SubmissionStopped:
            return False
        self.items += len(items)
        self._sizer.learn_batch(len(items), total_bytes, now_ns - self._last_ns)
        return True

    def finish(self) -> Progress:
        """Write what is left and seal the job."""
        try:
            self._flush()
        except SubmissionStopped:
            return self._ledger.progress(self.spec.job_id)
        finally:
            self._liveness.stop()
        if not self.written:
            self._open()
        return self._ledger.seal(self.spec.job_id, self._chunks)

    def confirm(self) -> None:
        """For a durable submission: return when all of it is on the server's disk. ``LedgerLost`` if the server forgot some."""
        if not self._options.durable:
            return
        chunks = max(self._chunks, self._next_chunk)
        patience = time.monotonic() + _SYNC_PATIENCE_S
        while True:
            try:
                stands = self._ledger.sync(self.spec.job_id)
                if stands.sealed:  # with fewer chunks only if it was cancelled, which needs no confirmation
                    return
                self._ledger.seal(self.spec.job_id, chunks)  # a server that was killed forgot that it was sealed
            except SubmissionConflict as gap:
                raise LedgerLost(
                    f"the server lost a part of job {self.spec.job_id} before it was on its disk",
                    remedy="submit it again; under an id of yours it goes on where the server's memory ends",
                    job_id=self.spec.job_id,
                ) from gap
            except LedgerUnavailable:
                if time.monotonic() > patience:
                    raise
                time.sleep(_SYNC_PAUSE_S)

    def abandon(self, error: BaseException) -> None:
        """The source or the ledger failed. What was written is cancelled, unless the same id may go on with it."""
        self._flow.stop()
        self._liveness.stop()
        if not self.written:
            return
        job_id = self.spec.job_id
        if self._resumable:
            error.add_note(f"job {job_id} is not complete: submit the same items with id={job_id!r} to go on")
            return
        try:
            self._ledger.cancel(job_id, f"the submission failed: {type(error).__name__}")
            error.add_note(f"job {job_id}, of which {self.items} items were submitted, was cancelled")
        except TidegateError as failed:
            error.add_note(f"job {job_id} could not be cancelled: {failed}")

    def stop(self) -> None:
        """End a wait for room, from another thread."""
        self._flow.stop()

    def _hold(self, batch: BatchPayload) -> None:
        if self._pending and self._pending_bytes + len(batch.data) > self._chunk_bytes:
            self._flush()
        if not self._pending:
            self._pending_since_ns = self._last_ns  # when its first item was asked for: a slow source is not held back
        self._pending.append(batch)
        self._pending_bytes += len(batch.data)
        old = not self._resumable and time.monotonic_ns() - self._pending_since_ns > _CHUNK_AGE_NS
        if old or len(self._pending) >= self._chunk_batches or self._pending_bytes >= self._chunk_bytes:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        if not self.written:
            self._open()
        if self._chunks >= self._next_chunk:
            self._flow.append(self._chunks, self._pending)
            self._learn()
        self._chunks += 1
        self._pending = []
        self._pending_bytes = 0

    def _open(self) -> bool:
        """Open the job, or find it; whether it was sealed already."""
        opened = self._ledger.open(self.spec)
        self._next_chunk = opened.next_chunk
        if not opened.sealed:
            self._liveness.start()
        if self._exists:
            self.items = opened.items
        return opened.sealed

    def _learn(self) -> None:
        now_ns = time.monotonic_ns()
        if self._sizer.adaptive and now_ns - self._learned_ns > _LEARN_NS:
            self._learned_ns = now_ns
            self._sizer.learn_stats(self._ledger.stats(self.spec.job_id))


def with_fixed_split(ledger: Ledger, spec: JobSpec, batch_size: int | None, usual_size: int) -> tuple[JobSpec, bool]:
    """``spec`` with a split that can be repeated: the one recorded if the job exists, else a new one; and whether it exists.

    ``batch_size``: the user's, or ``None`` for ``usual_size``. ``SubmissionConflict``: the job exists with another size.
    What else a recorded job says (its origin, its options) stays as it was when it was first submitted.
    """
    try:
        recorded = ledger.progress(spec.job_id).spec
    except JobNotFound:
        recorded = None
    if recorded is None or recorded.task != spec.task or recorded.shape != spec.shape:  # opening it will be a conflict
        split = msgspec.structs.replace(
            spec,
            batch_size=batch_size or usual_size,
            chunk_batches=min(_RESUMABLE_CHUNK_BATCHES, spec.max_pending_batches),
            chunk_bytes=min(CHUNK_BYTES, spec.max_pending_bytes),
        )
        return split, recorded is not None
    if not recorded.chunk_batches or batch_size not in (None, recorded.batch_size):
        raise SubmissionConflict(
            f"job {spec.job_id} was submitted with batch_size={recorded.batch_size or 'adaptive'}",
            remedy="submit it the same way, or use another id",
            job_id=spec.job_id,
        )
    return recorded, True
