"""The telemetry stream in Redis: each process adds a record a second, readers follow from a position of their own.

The stream is trimmed by its writers to about ``keep`` records, so it needs no reader and no clean-up. What is read is not
trusted: entries that are too large, malformed or of another version are skipped and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec
import redis

from tidegate.telemetry.record import RECORD_VERSION, TelemetryRecord

#: The one key of the stream; it is listed with all others in ``ledger/keys.py``.
STREAM = b"tg:{@}:telemetry"
#: The stream of a cluster in which no worker runs any more is forgotten after this time.
STREAM_TTL_S = 7 * 86_400
#: A record of a process with a hundred tasks has about 100 KiB.
MAX_RECORD_BYTES = 1 << 20

_FIELD = b"r"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(TelemetryRecord)
_Entry = tuple[bytes, dict[bytes, bytes]]


class TelemetryWriter:
    """Adds records. ``write`` raises redis-py's errors; sending a record again is harmless, readers go by ``sequence``.

    >>> from tidegate.embedded import EmbeddedServer
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, EmbeddedServer(folder) as server:
    ...     TelemetryWriter(server.client(), keep=100).write(TelemetryRecord(worker="w", sequence=1))
    ...     [record.worker for _, record in TelemetryReader(server.client()).read()[0]]
    ['w']
    """

    def __init__(self, client: redis.Redis, keep: int) -> None:
        self._client = client
        self._keep = keep

    def write(self, record: TelemetryRecord) -> None:
        """Add one record."""
        pipe = self._client.pipeline(transaction=False)
        pipe.xadd(STREAM, {_FIELD: _encoder.encode(record)}, maxlen=self._keep, approximate=True)
        pipe.expire(STREAM, STREAM_TTL_S)
        pipe.execute()


class TelemetryReader:
    """Follows the stream, or reads a span of it. ``skipped`` counts entries that were no records."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.skipped = 0

    def read(
        self, position: str = "0-0", count: int = 256, block_ms: int | None = None
    ) -> tuple[list[tuple[str, TelemetryRecord]], str]:
        """Records after ``position`` with their stream ids, and the position to go on from; waits up to ``block_ms``."""
        reply: Any = self._client.xread({STREAM: position}, count=count, block=block_ms)
        if not reply:
            return [], position
        entries = cast("list[_Entry]", reply[0][1] if isinstance(reply, list) else next(iter(reply.values()))[0])
        records = [(_text(entry_id), record) for entry_id, record in self._decoded(entries)]
        return records, _text(entries[-1][0])

    def between(self, start_ms: int, end_ms: int, page: int = 500) -> Iterator[tuple[int, TelemetryRecord]]:
        """Records written in a span of the server's time (milliseconds since 1970, both ends included)."""
        low = str(max(0, start_ms))
        while True:
            entries = cast("list[_Entry]", self._client.xrange(STREAM, min=low, max=str(end_ms), count=page))
            for entry_id, record in self._decoded(entries):
                yield int(entry_id.partition(b"-")[0]), record
            if len(entries) < page:
                return
            low = f"({_text(entries[-1][0])}"

    def _decoded(self, entries: list[_Entry]) -> Iterator[tuple[bytes, TelemetryRecord]]:
        for entry_id, fields in entries:
            record = _decode((fields or {}).get(_FIELD, b""))
            if record is None:
                self.skipped += 1
            else:
                yield entry_id, record


def _decode(data: bytes) -> TelemetryRecord | None:
    if not 0 < len(data) <= MAX_RECORD_BYTES:
        return None
    try:
        record = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return record if record.version == RECORD_VERSION and record.sequence > 0 else None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
