"""Items that ended are on record outside the process until they are reported, with what they returned or raised."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tidegate.executor.failure import ItemFailure
from tidegate.executor.host import Host
from tidegate.executor.outlog import OutcomeLog, Recorded, read_outcomes
from tidegate.model.outcome import Outcome
from tidegate.model.policy import TaskPolicy

TAG = b"sixteen bytes..."
PATIENCE_S = 60.0


def _describe(tag: bytes, failure: ItemFailure) -> bytes:
    assert tag == TAG
    return f"{failure.error_type}: {failure.message}".encode()


def _log(folder: Path, chunks: int = 8) -> OutcomeLog:
    return OutcomeLog(path=folder / "outcomes", encode=msgspec.msgpack.encode, describe=_describe, chunks=chunks)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host(outcomes=_log(tmp_path), journal=tmp_path / "journal") as host:
        yield host


def _records(folder: Path) -> dict[int, Recorded]:
    found = read_outcomes(folder / "outcomes")
    assert found.torn == 0
    assert len({record.position for record in found.records}) == len(found.records)
    return {record.position: record for record in found.records}


VALUES: list[Any] = [
    None, True, False, 0, 1, 127, 128, -1, -32, -33, 255, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**63, 2**64 - 1,
    0.0, -1.5, float("inf"), "", "short", "a" * 255, "b" * 256, "c" * 20_000, "d" * 16_384, "naïve ✓", b"", b"\0\xff",
    b"e" * 255, b"f" * 256, [1, "two", None], {"k": [1.5]}, dt.date(2026, 1, 2),
]  # fmt: skip


def test_every_result_waits_as_the_bytes_that_its_block_would_have(host: Host, tmp_path: Path) -> None:
    lane = host.lane("same", lambda value: value, TaskPolicy(concurrency=2))
    run = lane.start(VALUES, tag=TAG)
    assert run.wait(PATIENCE_S)
    found = _records(tmp_path)
    assert sorted(found) == list(range(len(VALUES)))
    for position, value in enumerate(VALUES):
        record = found[position]
        assert (record.tag, record.outcome, record.attempts, record.lost) == (TAG, Outcome.SUCCEEDED, 1, False)
        expected = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
        assert msgspec.msgpack.decode(record.content) == expected
        assert type(msgspec.msgpack.decode(record.content)) is type(expected)


def test_coroutines_are_on_record_whether_they_suspended_or_not(host: Host, tmp_path: Path) -> None:
    async def work(number: int) -> int:
        if number % 2:
            await asyncio.sleep(0.001)
        if number > 7:
            raise ValueError(f"{number} is too many")
        return number

    run = host.lane("work", work, TaskPolicy(concurrency=4)).start(range(10), tag=TAG)
    assert run.wait(PATIENCE_S)
    found = _records(tmp_path)
    assert {position: msgspec.msgpack.decode(found[position].content) for position in range(8)} == {
        n: n for n in range(8)
    }
    assert [found[n].outcome for n in (8, 9)] == [Outcome.FAILED] * 2
    assert found[9].content == b"ValueError: 9 is too many"


def test_failures_timeouts_and_cancelled_items_are_on_record_too(host: Host, tmp_path: Path) -> None:
    def work(number: int) -> int:
        if number == 1:
            raise KeyError("one")
        if number == 2:
            while True:
                pass
        if number == 3:
            run.cancel()
        return number

    run = host.lane("work", work, TaskPolicy(concurrency=1, timeout=0.5)).start(range(6), tag=TAG)
    assert run.wait(PATIENCE_S)
    found = _records(tmp_path)
    assert [found[n].outcome for n in range(6)] == [
        Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.CANCELLED,
    ]  # fmt: skip
    assert found[1].content == b"KeyError: 'one'"
    assert found[4].content == b""


def test_a_failure_is_on_record_before_the_next_item_starts(host: Host, tmp_path: Path) -> None:
    """Otherwise an item that failed for good would run again because the one after it ended the process."""
    seen: list[list[int]] = []

    def work(number: int) -> None:
        seen.append(sorted(_records(tmp_path)))
        raise ValueError("each of them")

    assert host.lane("work", work, TaskPolicy(concurrency=1)).start(range(5), tag=TAG).wait(PATIENCE_S)
    assert seen == [list(range(n)) for n in range(5)]


def test_a_result_is_on_record_before_the_next_item_starts(host: Host, tmp_path: Path) -> None:
    seen: list[list[int]] = []
    lane = host.lane("work", lambda _: seen.append(sorted(_records(tmp_path))), TaskPolicy(concurrency=1))
    assert lane.start(range(5), tag=TAG).wait(PATIENCE_S)
    assert seen == [list(range(n)) for n in range(5)]


def test_what_was_reported_is_forgotten_and_nothing_else(host: Host, tmp_path: Path) -> None:
    lane = host.lane("same", lambda value: value, TaskPolicy(concurrency=1))
    first = lane.start(range(5), tag=TAG)
    assert first.wait(PATIENCE_S)
    first.take()
    assert len(_records(tmp_path)) == 5, "taken is not reported"
    other = lane.start(range(100, 103), tag=b"another tag.....")
    assert other.wait(PATIENCE_S)
    first.reported()
    assert {record.tag for record in _records(tmp_path).values()} == {b"another tag....."}
    del other
    assert _records(tmp_path) == {}, "a run that nobody has any more is over"


def test_a_long_job_needs_no_more_room_than_what_waits(tmp_path: Path) -> None:
    with Host(outcomes=_log(tmp_path, chunks=2)) as host:
        lane = host.lane("same", lambda value: value, TaskPolicy(concurrency=1))
        for _ in range(50):
            run = lane.start(["x" * 100] * 200, tag=TAG)
            assert run.wait(PATIENCE_S)
            run.take()
            run.reported()
        assert read_outcomes(tmp_path / "outcomes").unwritten == 0


def test_what_cannot_be_kept_is_noted_without_its_content(tmp_path: Path) -> None:
    with Host(outcomes=_log(tmp_path, chunks=2)) as host:
        values = [object(), "x" * 40_000, b"y" * 40_000, "z" * 30_000, 7]
        run = host.lane("same", lambda value: value, TaskPolicy(concurrency=1)).start(values, tag=TAG)
        assert run.wait(PATIENCE_S)
        found = _records(tmp_path)
        assert [found[n].lost for n in range(5)] == [True, True, True, False, False]
        assert run.take().count == 5, "for the process itself nothing is lost"
        assert read_outcomes(tmp_path / "outcomes").unwritten == 2


def test_items_go_on_when_the_log_is_full(tmp_path: Path) -> None:
    with Host(outcomes=_log(tmp_path, chunks=1)) as host:
        run = host.lane("same", lambda value: value, TaskPolicy(concurrency=1)).start(["x" * 1000] * 100, tag=TAG)
        assert run.wait(PATIENCE_S)
        assert run.take().count == 100
        found = read_outcomes(tmp_path / "outcomes")
        assert 0 < len(found.records) <= 100
        assert found.unwritten >= 68


def test_runs_without_a_tag_and_hosts_without_a_log_write_nothing(host: Host, tmp_path: Path) -> None:
    assert host.lane("same", lambda value: value, TaskPolicy()).start(range(5)).wait(PATIENCE_S)
    assert _records(tmp_path) == {}
    with Host() as plain:
        run = plain.lane("same", lambda value: value, TaskPolicy()).start(range(5), tag=TAG)
        assert run.wait(PATIENCE_S)
        run.take()
        run.reported()


def test_a_forked_child_leaves_the_log_of_its_parent_alone(host: Host, tmp_path: Path) -> None:
    begun = threading.Event()

    def work(number: int) -> int:
        assert begun.wait(PATIENCE_S)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run.reported()
                code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    lane = host.lane("work", work, TaskPolicy(concurrency=1))
    run = lane.start(range(4), tag=TAG)
    begun.set()
    assert run.wait(PATIENCE_S)
    assert run.take().ok_values == [0] * 4
    assert sorted(_records(tmp_path)) == [0, 1, 2, 3]


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "outcomes"
    with pytest.raises(OSError, match="No such file"):
        read_outcomes(path)
    path.write_bytes(b"TGOUTC\r\n" + bytes(100))
    with pytest.raises(ValueError, match="outcome log"):
        read_outcomes(path)


_KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_outlog import TAG, _log
from tidegate.executor.host import Host
from tidegate.model.policy import TaskPolicy
host = Host(outcomes=_log(Path(sys.argv[1])), journal=Path(sys.argv[1]) / "journal")
def work(number):
    if number == 700:
        print("there", flush=True)
        time.sleep(600)
    return number * 3
run = host.lane("work", work, TaskPolicy(concurrency=1)).start(range(1000), tag=TAG)
run.wait()
"""


def test_all_that_ended_survives_kill_9_and_nothing_that_had_not(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    found = _records(tmp_path)
    assert {n: msgspec.msgpack.decode(record.content) for n, record in found.items()} == {n: 3 * n for n in range(700)}
