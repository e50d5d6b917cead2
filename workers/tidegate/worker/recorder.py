"""Recorder: the form in which outcomes wait in the outcome log, for the process itself to write and its supervisor to read.

A result waits as the msgpack that its result block would have. A failure waits as its dead letter, arguments included,
because the supervisor has no payloads: ``[FailureRecord, traceback]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tidegate.clock import Clock, SystemClock
from tidegate.errors import PayloadError, PayloadTooLarge
from tidegate.executor.failure import ItemFailure
from tidegate.model.outcome import FailureRecord
from tidegate.model.wire import encode_argument
from tidegate.worker.settle import arguments_of, dead_letter

if TYPE_CHECKING:
    from tidegate.worker.leases import LeaseKeeper


class WaitingFailure(msgspec.Struct, frozen=True, array_like=True):
    """A failure in the outcome log."""

    record: FailureRecord
    traceback: str


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(WaitingFailure)


class Recorder:
    """The writer's end. Errors of both methods mean: noted as ended, without more; the item runs again if it comes to it."""

    def __init__(self, keeper: LeaseKeeper, max_item_bytes: int, clock: Clock | None = None) -> None:
        self._keeper = keeper
        self._max_item = max_item_bytes
        self._clock = clock or SystemClock()

    def encode(self, value: object) -> bytes:
        """A result. Whatever a result block would refuse is refused."""
        raw = encode_argument(value)
        if len(raw) > self._max_item:
            raise PayloadTooLarge(
                f"a result of {len(raw):,} bytes", remedy="return less", bytes=len(raw), limit=self._max_item
            )
        return raw

    def describe(self, tag: bytes, failure: ItemFailure) -> bytes:
        """The failure of an item of the batch that is held under ``tag``."""
        work = self._keeper.by_tag(tag)
        if work is None:
            raise PayloadError("the batch is held no longer", remedy="none is needed")
        if work.arguments is None:
            work.arguments = arguments_of(work)
        record = dead_letter(work, failure, work.arguments, self._clock.wall_ms())
        return _encoder.encode(WaitingFailure(record, failure.traceback))


def read_failure(content: bytes) -> WaitingFailure | None:
    """The failure that :meth:`Recorder.describe` wrote, ``None`` if it is none."""
    try:
        return _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
