"""The telemetry stream: what is written is read, what is not a record is skipped, and it never grows."""

from __future__ import annotations

import msgspec

from tidegate.embedded import EmbeddedServer
from tidegate.ledger import keys
from tidegate.telemetry.quarantine import QUARANTINE, Quarantine
from tidegate.telemetry.record import LaneDelta, TelemetryRecord
from tidegate.telemetry.stream import MAX_RECORD_BYTES, STREAM, TelemetryReader, TelemetryWriter


def test_a_reader_follows_from_its_position(valkey: EmbeddedServer, ledger_url: str) -> None:
    client = valkey.client()
    writer, reader = TelemetryWriter(client, 1000), TelemetryReader(client)
    sent = [TelemetryRecord(worker="w", sequence=n, lanes=(LaneDelta(task="t", succeeded=n),)) for n in range(1, 8)]
    for record in sent:
        writer.write(record)
    first, position = reader.read(count=3)
    rest, last = reader.read(position, count=100)
    assert [record for _, record in first + rest] == sent
    assert reader.read(last, block_ms=1) == ([], last)
    spans = list(reader.between(0, 1 << 50, page=2))
    assert [record for _, record in spans] == sent
    assert list(reader.between(1, 2)) == []
    client.close()


def test_entries_that_are_no_records_are_skipped_and_counted(valkey: EmbeddedServer, ledger_url: str) -> None:
    client = valkey.client()
    reader = TelemetryReader(client)
    newer = msgspec.msgpack.encode(TelemetryRecord(version=99, worker="w", sequence=1))
    bad = [b"", b"\xc1", b"x" * (MAX_RECORD_BYTES + 1), newer, msgspec.msgpack.encode({"worker": 1}), b"\x91" * 100_000]
    for data in bad:
        client.xadd(STREAM, {"r": data})
    client.xadd(STREAM, {"other": b"field"})
    TelemetryWriter(client, 1000).write(TelemetryRecord(worker="w", sequence=1))
    records, position = reader.read()
    assert [record.worker for _, record in records] == ["w"]
    assert reader.skipped == len(bad) + 1
    assert reader.read(position)[0] == []
    client.close()


def test_writers_trim_the_stream_and_it_has_a_time_to_live(valkey: EmbeddedServer, ledger_url: str) -> None:
    client = valkey.client()
    writer = TelemetryWriter(client, 50)
    for number in range(1, 1001):
        writer.write(TelemetryRecord(worker="w", sequence=number))
    assert client.xlen(STREAM) < 50 + 200
    assert client.ttl(STREAM) > 0
    client.close()


def test_its_key_is_the_one_in_the_ledgers_table() -> None:
    assert STREAM == keys.TELEMETRY
    assert QUARANTINE == keys.QUARANTINE


def test_the_quarantine_is_bounded_in_entries_and_in_bytes(valkey: EmbeddedServer, ledger_url: str) -> None:
    client = valkey.client()
    quarantine = Quarantine(client)
    for number in range(1300):
        quarantine.note("w", f"reason {number} " + "x" * 5000, b"y" * 5000)
    assert client.xlen(QUARANTINE) < 1200
    [newest] = quarantine.newest(1)
    assert newest.reason.startswith("reason 1299 ")
    assert (len(newest.reason), len(newest.sample)) == (500, 512)
    assert client.ttl(QUARANTINE) > 0
    client.close()
