"""What a checkpoint holds: totals by task, which record of each worker was added last, and the history."""

from __future__ import annotations

import msgspec

from tidegate.collector.history import Bucket

STATE_VERSION = 1


class TaskTotals(msgspec.Struct):
    """Counters and histogram fields of one task since the beginning, over all workers."""

    counts: dict[str, int] = msgspec.field(default_factory=dict)
    stats: dict[str, int] = msgspec.field(default_factory=dict)


class Seen(msgspec.Struct, array_like=True):
    """Of one worker process: its highest record number, numbers below it that did not come yet, when it was heard of."""

    sequence: int = 0
    holes: list[int] = msgspec.field(default_factory=list)
    at_ms: int = 0


class State(msgspec.Struct):
    """Everything that must survive a restart of the collector. ``position``: the last stream entry that is in it."""

    version: int = STATE_VERSION
    position: str = "0-0"
    tasks: dict[str, TaskTotals] = msgspec.field(default_factory=dict)
    errors: dict[str, int] = msgspec.field(default_factory=dict)
    sums: dict[str, int] = msgspec.field(default_factory=dict)
    seen: dict[str, Seen] = msgspec.field(default_factory=dict)
    seconds: dict[int, Bucket] = msgspec.field(default_factory=dict)
    ten_seconds: dict[int, Bucket] = msgspec.field(default_factory=dict)


#: JSON and not msgpack: nanoseconds added up over months of many items at once outgrow 64 bits.
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(State)


def encode_state(state: State) -> bytes:
    """The state as bytes."""
    return _encoder.encode(state)


def decode_state(data: bytes) -> State | None:
    """The state of a checkpoint; None when it is of another version or damaged: then counting starts anew."""
    try:
        state = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return state if state.version == STATE_VERSION else None
