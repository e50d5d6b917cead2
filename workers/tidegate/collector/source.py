"""StreamSource: the telemetry stream with the ledger's errors, for the collector, the report and ``tidegate top``."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.ledger.connection import connect, safe_url, translated
from tidegate.telemetry.record import TelemetryRecord
from tidegate.telemetry.stream import TelemetryReader


class StreamSource:
    """Reads the stream; ``LedgerError`` when the server cannot be asked. Connects at the first read."""

    def __init__(self, url: str) -> None:
        self._client = connect(url, name="tidegate-telemetry")
        self._reader = TelemetryReader(self._client)
        self._where = safe_url(url)

    @property
    def skipped(self) -> int:
        """Entries met so far that were no records."""
        return self._reader.skipped

    def read(self, position: str, *, count: int, block_ms: int) -> tuple[list[tuple[str, TelemetryRecord]], str]:
        """Records after ``position`` and where to go on; waits up to ``block_ms`` (0: not at all) for one."""
        with translated(self._where):
            return self._reader.read(position, count, block_ms or None)

    def between(self, start_ms: int, end_ms: int) -> Iterator[tuple[int, TelemetryRecord]]:
        """The records kept from that time of the server's clock, oldest first."""
        with translated(self._where):
            yield from self._reader.between(start_ms, end_ms)

    def server_ms(self) -> int:
        """The server's clock, which stream ids are made of."""
        with translated(self._where):
            seconds, microseconds = self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
