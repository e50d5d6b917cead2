"""What a process leaves for its supervisor can be read after any death, and damage reads as nothing."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.ledger.port import Lease, Token
from tidegate.worker import bits
from tidegate.worker.crash import Death, overdue_items, salvage
from tidegate.worker.held import SLOT_BYTES, HeldFile, Stage, lease_tag, read_held


def _lease(batch: int = 4, **changes: object) -> Lease:
    values: dict[str, object] = {
        "job_id": "j1", "batch": batch, "token": Token(9, "abc"), "claimer": "w/0", "items": 20, "first_index": 100,
        "payload": b"p" * 1000, "done_bits": b"\x01\0\0", "attempts": bytes(20), "crashes": bytes([1]) + bytes(19), "task": "t",
    }  # fmt: skip
    return Lease(**{**values, **changes})  # type: ignore[arg-type]


def test_a_lease_comes_back_whole_but_for_its_payload(tmp_path: Path) -> None:
    file = HeldFile(tmp_path / "h", 2)
    lease = _lease()
    file.write(1, lease_tag(lease), lease, hard_timeout_s=2.5, queue="q", ticket=7)
    header, [held] = read_held(tmp_path / "h")
    assert header is not None
    assert (header.pid, header.stage) == (os.getpid(), Stage.STARTING)
    assert held.lease() == _lease(payload=b"")
    assert (held.tag, held.hard_timeout_s, held.queue, held.ticket, held.asked) == (lease_tag(lease), 2.5, "q", 7, "")
    file.asking(1, "n1")
    assert read_held(tmp_path / "h")[1][0].asked == "n1"
    file.write(1, lease_tag(lease), lease)
    assert read_held(tmp_path / "h")[1][0].asked == ""
    file.clear(1)
    assert read_held(tmp_path / "h")[1] == []


def test_a_ticket_that_asks_is_noted_before_there_is_a_lease(tmp_path: Path) -> None:
    file = HeldFile(tmp_path / "h", 1)
    file.visit(0, "w/0", job_id="j1", queue="q", ticket=3, nonce="n7")
    [held] = read_held(tmp_path / "h")[1]
    assert (held.is_lease, held.job_id, held.ticket, held.asked, held.claimer) == (False, "j1", 3, "n7", "w/0")


def test_the_largest_batch_fits(tmp_path: Path) -> None:
    file = HeldFile(tmp_path / "h", 2)
    items = 100_000
    lease = _lease(items=items, attempts=bytes(items), crashes=bytes(items), done_bits=bytes(items // 8))
    file.write(0, b"t" * 16, lease)
    file.write(1, b"u" * 16, lease)
    assert [held.items for held in read_held(tmp_path / "h")[1]] == [items, items]
    assert (tmp_path / "h").stat().st_blocks * 512 < 2 * SLOT_BYTES + 65536


def test_a_record_that_is_torn_or_damaged_reads_as_none(tmp_path: Path) -> None:
    path = tmp_path / "h"
    file = HeldFile(path, 1)
    file.write(0, b"t" * 16, _lease())
    whole = path.read_bytes()
    for at in (4096, 4100, 4096 + 60, 4096 + 100):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        assert read_held(path)[1] == []
    path.write_bytes(whole[:4200])
    assert read_held(path)[1] == []
    path.write_bytes(b"")
    assert read_held(path) == (None, [])
    path.unlink()
    assert read_held(path) == (None, [])


_DYING = """
import os, signal, sys, threading, time
from pathlib import Path
import msgspec
from tidegate.executor.host import Host
from tidegate.executor.outlog import OutcomeLog
from tidegate.ledger.port import Lease, Token
from tidegate.model.policy import TaskPolicy
from tidegate.worker.held import HeldFile, lease_tag
folder = Path(sys.argv[1])
held = HeldFile(folder / "held", 2)
log = OutcomeLog(path=folder / "outcomes", encode=msgspec.msgpack.encode, describe=lambda tag, failure: b"")
host = Host(journal=folder / "journal", outcomes=log)
def lease(b):
    return Lease(job_id="j", batch=b, token=Token(b, "n"), claimer="w", items=10, first_index=10 * b, payload=b"", task="t")
leases = [lease(0), lease(1)]
for slot, lease in enumerate(leases):
    held.write(slot, lease_tag(lease), lease, hard_timeout_s=1e-9 if slot else 0.0)
running = threading.Event()
def item(number):
    if number == 13:
        running.set()
        time.sleep(600)
    return number
lane = host.lane("t", item, TaskPolicy(concurrency=1))
runs = [lane.start(list(range(10 * b, 10 * b + 10)), tag=lease_tag(leases[b]), first_index=10 * b) for b in (0, 1)]
running.wait()
print("running", flush=True)
time.sleep(600)
"""


def test_after_kill_9_the_items_that_ran_and_those_that_had_ended_are_named_and_no_others(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _DYING, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = salvage(tmp_path / "held", tmp_path / "journal", tmp_path / "outcomes")
    assert [held.batch for held in found.held] == [0, 1]
    by_batch = {held.batch: sorted(found.running.get(held.tag, ())) for held in found.held}
    assert by_batch == {0: [], 1: [3]}
    assert found.suspects == 1
    ended = {held.batch: sorted(found.ended.get(held.tag, {})) for held in found.held}
    assert ended == {0: list(range(10)), 1: [0, 1, 2]}, "these ended, and nobody had asked for their results yet"
    assert overdue_items(tmp_path / "held", tmp_path / "journal") == {(found.held[1].tag, 3)}
    process.stdout.close()


def test_a_death_says_what_is_known_of_it() -> None:
    assert str(Death(1, signal.SIGSEGV)) == "ended by SIGSEGV"
    assert str(Death(1, 3 << 8)) == "exited with code 3"
    assert "out of memory" in str(Death(1, signal.SIGKILL, memory=90, memory_limit=100))
    assert "out of memory" not in str(Death(1, signal.SIGKILL, memory=10, memory_limit=100))
    assert "hard timeout" in str(Death(1, signal.SIGKILL, reason="hard timeout of 1 s"))


def test_bitmaps_count_unite_and_complement() -> None:
    assert bits.count(bits.of(range(0, 20, 3), 20)) == 7
    assert bits.missing(bits.of(range(0, 20, 2), 20), 20) == bits.of(range(1, 20, 2), 20)
    assert bits.union(b"", b"\x02") == b"\x02"
    assert bits.union(b"\x01\x01", b"\x02") == b"\x03\x01"
    assert not bits.is_set(b"\x01", 9)
    assert struct.unpack("<H", bits.of([0, 15], 16))[0] == 0x8001


_BLAMED = """
import ctypes, faulthandler, os, signal, sys, threading, time
from pathlib import Path
from tidegate.executor.host import Host
from tidegate.executor.journal import name_culprits
from tidegate.ledger.port import Lease, Token
from tidegate.model.policy import TaskPolicy
from tidegate.worker.held import HeldFile, lease_tag
folder, how = Path(sys.argv[1]), sys.argv[2]
faulthandler.enable()
if how != "unwatched":
    name_culprits()
lease = Lease(job_id="j", batch=0, token=Token(0, "n"), claimer="w", items=3, first_index=0, payload=b"", task="t")
HeldFile(folder / "held", 1).write(0, lease_tag(lease), lease)
host = Host(journal=folder / "journal")
running = threading.Barrier(3)
def item(number):
    running.wait()
    if number == 1:
        {"segv": lambda: ctypes.string_at(0), "abort": os.abort, "exit": lambda: os._exit(3),
         "unwatched": os.abort, "fork": fork}[how]()
    time.sleep(600)
def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    os.kill(os.getpid(), signal.SIGKILL)
host.lane("t", item, TaskPolicy(concurrency=3)).start(range(3), tag=lease_tag(lease)).wait()
"""


@pytest.mark.parametrize(("how", "named"), [("segv", 1), ("abort", 1), ("exit", 1), ("unwatched", 0), ("fork", 0)])
def test_the_item_whose_thread_ends_the_process_is_named_among_those_that_ran(
    tmp_path: Path, how: str, named: bool
) -> None:
    """And only there: not when it was not watched for, and not for a child of it that exits."""
    process = subprocess.run(
        [sys.executable, "-c", _BLAMED, str(tmp_path), how],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    expected = {"segv": -signal.SIGSEGV, "exit": 3, "fork": -signal.SIGKILL}.get(how, -signal.SIGABRT)
    assert process.returncode == expected, "it ends as it would have ended"
    if how in ("segv", "abort"):
        assert b"in item" in process.stderr, "and the traceback is still shown"
    found = salvage(tmp_path / "held", tmp_path / "journal", tmp_path / "outcomes")
    assert found.named == named
    assert sorted(next(iter(found.running.values()))) == ([1] if named else [0, 1, 2])


_AGAIN = """
import os
from tidegate.executor.journal import name_culprits
name_culprits()
if (child := os.fork()) == 0:
    name_culprits()
    os.abort()
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""


def test_a_child_that_watches_for_itself_dies_of_what_killed_it() -> None:
    """What its parent left is no handler to pass the signal on to: it would pass it on to itself, for ever."""
    done = subprocess.run(
        [sys.executable, "-c", _AGAIN],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert done.stdout.strip() == str(-signal.SIGABRT), done.stderr
