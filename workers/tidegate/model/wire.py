"""The wire form: how items, results and failures become bytes, and back. The only place that knows it.

msgpack through msgspec, versioned, bounded. A batch payload is ``[version, shape, items]`` where shape says how an item is
applied: ``ONE`` as the only argument, ``STAR`` as ``*args``, ``CALL`` as ``(*args, **kwargs)``. A result block is
``[version, positions, values]`` where positions is the first item index of a contiguous block, or a list of item indices.
A failure block is ``[version, [FailureRecord, ...]]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import msgspec

from tidegate.errors import PayloadError, PayloadTooLarge
from tidegate.model.outcome import FailureRecord

WIRE_VERSION = 1

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()
_split_decoder = msgspec.msgpack.Decoder(tuple[int, int, list[msgspec.Raw]])

#: Text that is not UTF-8 is a UnicodeDecodeError, which msgspec lets through.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Shape(IntEnum):
    """How the function is applied to an item."""

    ONE = 0
    STAR = 1
    CALL = 2


class _Failures(msgspec.Struct, frozen=True, array_like=True):
    version: int
    records: list[FailureRecord]


_failures_decoder = msgspec.msgpack.Decoder(_Failures)


def encode_items(items: Sequence[Any], shape: Shape, *, max_bytes: int) -> bytes:
    """The payload of one batch. ``PayloadError`` names the first item that cannot be encoded.

    >>> decode_items(encode_items([1, "two"], Shape.ONE, max_bytes=100))
    (<Shape.ONE: 0>, [1, 'two'])
    """
    try:
        payload = _encoder.encode((WIRE_VERSION, int(shape), items))
    except (TypeError, OverflowError, RecursionError, ValueError) as error:
        position = _first_that_fails(items)
        raise PayloadError(
            f"item {position} of the batch cannot be encoded: {error}",
            remedy="send None, bool, int, float, str, bytes, list, tuple, dict, set, datetime, UUID, Decimal, "
            "a dataclass or a msgspec.Struct",
            position=position,
        ) from error
    if len(payload) > max_bytes:
        raise PayloadTooLarge(
            f"a batch of {len(items)} items takes {len(payload):,} bytes, over the limit of {max_bytes:,}",
            remedy="use a smaller batch_size, send references instead of contents, or raise max_batch_bytes",
            bytes=len(payload),
            limit=max_bytes,
        )
    return payload


def decode_items(payload: bytes) -> tuple[Shape, list[Any]]:
    """The items of a batch payload. ``PayloadError`` if it is not one, or of a version this code does not know."""
    document = _decode(payload, "batch payload")
    match document:
        case [int(version), int(shape), list(items)] if version == WIRE_VERSION and 0 <= shape <= 2:
            return Shape(shape), items
        case [int(version), *_] if version != WIRE_VERSION:
            raise PayloadError(
                f"batch payload of wire version {version}, this worker reads {WIRE_VERSION}",
                remedy="upgrade the workers before the producers",
                version=version,
            )
        case _:
            raise PayloadError("batch payload is malformed", remedy="cancel the job and submit it again")


def split_items(payload: bytes) -> list[bytes]:
    """Every item of a batch payload as a dead letter keeps it, without building it: what the producer sent, byte for
    byte, whatever the task has done to the object since.

    >>> [decode_argument(item) for item in split_items(encode_items([1, "two"], Shape.ONE, max_bytes=100))]
    [1, 'two']
    """
    try:
        return [bytes(item) for item in _split_decoder.decode(payload)[2]]
    except _UNREADABLE as error:
        raise PayloadError("batch payload is malformed", remedy="cancel the job and submit it again") from error


def encode_argument(item: Any) -> bytes:
    """One item alone, as a dead letter keeps it."""
    return _encoder.encode(item)


def decode_argument(data: bytes) -> Any:
    """The item of a dead letter."""
    return _decode(data, "argument")


def encode_results(positions: int | Sequence[int], values: Sequence[Any]) -> bytes:
    """A result block. ``PayloadError`` says which value cannot be encoded: its fact ``position`` counts within ``values``.

    >>> list(decode_results(encode_results(10, ["a", "b"])))
    [(10, 'a'), (11, 'b')]
    """
    try:
        return _encoder.encode((WIRE_VERSION, positions, values))
    except (TypeError, OverflowError, RecursionError, ValueError) as error:
        position = _first_that_fails(values)
        raise PayloadError(
            f"the result cannot be encoded: {error}",
            remedy="return plain data (numbers, text, bytes, lists, dicts, dataclasses), or store it and return a reference",
            position=position,
        ) from error


def decode_results(block: bytes) -> list[tuple[int, Any]]:
    """The ``(index, value)`` pairs of a result block."""
    document = _decode(block, "result block")
    match document:
        case [_, int(first), list(values)]:
            return list(enumerate(values, first))
        case [_, list(positions), list(values)] if len(positions) == len(values):
            return list(zip(positions, values, strict=True))
        case _:
            raise PayloadError("result block is malformed", remedy="the job's results are damaged; submit it again")


def encode_failures(records: Sequence[FailureRecord]) -> bytes:
    """A failure block."""
    return _encoder.encode(_Failures(WIRE_VERSION, list(records)))


def decode_failures(block: bytes) -> list[FailureRecord]:
    """The records of a failure block."""
    try:
        return _failures_decoder.decode(block).records
    except _UNREADABLE as error:
        raise PayloadError("failure block is malformed", remedy="the job's dead letters are damaged") from error


def _decode(data: bytes, what: str) -> Any:
    try:
        return _decoder.decode(data)
    except _UNREADABLE as error:
        raise PayloadError(
            f"{what} is not valid: {error}", remedy="it was written by something else or damaged"
        ) from error


def _first_that_fails(items: Sequence[Any]) -> int:
    for position, item in enumerate(items):
        try:
            _encoder.encode(item)
        except (TypeError, OverflowError, RecursionError, ValueError):
            return position
    return -1
