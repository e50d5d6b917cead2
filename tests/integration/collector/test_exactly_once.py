"""A collector that is stopped, killed, doubled or cut off adds every record exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from watched import World

from tidegate.collector.service import Collector
from tidegate.embedded import EmbeddedServer
from tidegate.ledger import checkpoint as checkpoint_module
from tidegate.ledger import keys
from tidegate.ledger.checkpoint import Checkpoint
from tidegate.ledger.connection import connect

PATIENCE_S = 60.0


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait for an event that another thread or process brings about."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def succeeded(collector: Collector) -> int:
    with collector.aggregate.lock:
        return sum(totals.counts.get("succeeded", 0) for totals in collector.aggregate.tasks.values())


def test_what_was_written_before_the_start_is_there_when_start_returns(world: World, make_collector: Any) -> None:
    for sequence in range(1, 31):
        world.tell("a", sequence)

    with make_collector() as collector:
        assert succeeded(collector) == 300


def test_what_is_written_later_comes_in(world: World, make_collector: Any) -> None:
    with make_collector() as collector:
        world.tell("a", 1)
        world.tell("a", 1)
        world.tell("a", 2)

        eventually(lambda: collector.aggregate.sums["duplicates"] == 1 and succeeded(collector) == 20, "two records")


def test_a_stopped_collector_goes_on_where_it_was(world: World, make_collector: Any) -> None:
    world.tell("a", 1)
    with make_collector("c1") as first:
        assert succeeded(first) == 10
    world.tell("a", 2)

    with make_collector("c2") as second:
        assert succeeded(second) == 20
        assert second.aggregate.sums["duplicates"] == 0
        assert second.owns_checkpoint


def test_what_the_stream_holds_no_more_is_still_in_the_totals(world: World, make_collector: Any) -> None:
    world.tell("a", 1)
    world.tell("a", 2)
    with make_collector("c1") as first:
        world.tell("a", 3)
        eventually(lambda: succeeded(first) == 30, "three records")
    client = connect(world.url)
    client.xtrim(keys.TELEMETRY, maxlen=0)
    client.close()
    world.tell("a", 4)

    with make_collector("c2") as second:
        assert succeeded(second) == 40
        assert second.aggregate.sums["records"] == 4
        assert (
            sum(bucket.succeeded for _, bucket in second.aggregate.ten_seconds.points(second.now_ms() + 10_000)) == 40
        )


def test_a_fault_of_our_own_is_trouble_that_can_be_seen(
    world: World, make_collector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_collector() as collector:

        def fail() -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(collector.jobs, "refresh", fail)
        eventually(lambda: "a bug" in collector.trouble, "trouble")
        monkeypatch.undo()

        eventually(lambda: not collector.trouble, "no trouble")


def test_a_collector_that_dies_without_saving_is_made_good_from_the_stream(world: World, make_collector: Any) -> None:
    world.tell("a", 1)
    with make_collector("c1"):
        pass
    world.tell("a", 2)
    dead = make_collector(
        "c2"
    )  # reads, and never saves: its owner's time has to run out, or it is the same owner again
    dead._resume()
    dead._follow(block_ms=0)
    assert succeeded(dead) == 20

    with make_collector("c3") as third:
        assert succeeded(third) == 20


def test_of_two_collectors_one_saves_and_both_are_right(world: World, make_collector: Any) -> None:
    world.tell("a", 1)
    with make_collector("c1", save_s=0.0) as first, make_collector("c2", save_s=0.0) as second:
        world.tell("a", 2)

        eventually(lambda: succeeded(first) == succeeded(second) == 20, "both add both")
        assert first.owns_checkpoint
        assert not second.owns_checkpoint

        first.stop()
        eventually(lambda: second.owns_checkpoint, "the other takes over")


def test_the_checkpoint_never_goes_back_and_has_one_owner_and_an_end(ledger_url: str) -> None:
    one, two = Checkpoint(ledger_url, "one"), Checkpoint(ledger_url, "two")

    assert one.load() is None
    assert one.save("5-1", b"a")
    assert not two.save("9-0", b"b")  # somebody else's
    assert not one.save("5-0", b"c")  # back
    assert one.load() == ("5-1", b"a")
    one.release()
    assert two.save("5-2", b"d")
    assert two.load() == ("5-2", b"d")
    client = connect(ledger_url)
    assert 0 < int(client.pttl(keys.COLLECTOR)) <= checkpoint_module.KEEP_MS
    for closable in (one, two, client):
        closable.close()


def test_an_owner_that_fell_silent_is_replaced(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "OWNER_MS", 1)
    one, two = Checkpoint(ledger_url, "one"), Checkpoint(ledger_url, "two")
    assert one.save("1-0", b"a")

    eventually(lambda: two.save("2-0", b"b"), "the other takes over")

    assert two.load() == ("2-0", b"b")
    one.close()
    two.close()


def test_entries_that_are_no_records_are_skipped_and_counted(world: World, make_collector: Any) -> None:
    client = connect(world.url)
    world.tell("a", 1)
    client.xadd(keys.TELEMETRY, {"r": b"\xc1garbage"})
    client.xadd(keys.TELEMETRY, {"other": b"x"})
    world.tell("a", 2)
    client.close()

    with make_collector() as collector:
        assert succeeded(collector) == 20
        assert collector.aggregate.sums["malformed"] == 2


def test_a_damaged_checkpoint_starts_counting_anew_from_what_the_stream_holds(
    world: World, make_collector: Any
) -> None:
    world.tell("a", 1)
    broken = Checkpoint(world.url, "c0")
    assert broken.save("99-0", b"not a state")
    broken.release()
    broken.close()

    with make_collector() as collector:
        assert succeeded(collector) == 10


def test_a_server_that_goes_away_is_trouble_until_it_is_back(own_server: EmbeddedServer) -> None:
    world = World(own_server.url)
    from tidegate.collector.source import StreamSource

    stream, store = StreamSource(own_server.url), Checkpoint(own_server.url, "c")
    with Collector(world.ledger, stream, store, jobs_s=0.05) as collector:
        world.tell("a", 1)
        eventually(lambda: succeeded(collector) == 10, "the first record")

        own_server.stop()
        eventually(lambda: bool(collector.trouble), "trouble")
        own_server.start()
        eventually(lambda: not collector.trouble, "no trouble")
        world.tell("a", 2)

        eventually(lambda: succeeded(collector) == 20, "the second record")
    stream.close()
    store.close()
    world.close()


def start_collector(url: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "tidegate", "collector", "--port", "0", "--json-address"]
    environment = {**os.environ, "TIDEGATE_URL": url}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = ""
    for line in process.stdout:
        lines += line
        if line.startswith("}"):
            break
    return process, json.loads(lines)["address"]


def scraped(address: str, name: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics", timeout=PATIENCE_S) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_command_killed_or_stopped_loses_and_doubles_nothing(world: World, how: signal.Signals) -> None:
    for sequence in range(1, 11):
        world.tell("a", sequence)
    process, address = start_collector(world.url)
    assert scraped(address, "tidegate_items_total") == 100
    for sequence in range(11, 21):
        world.tell("a", sequence)
    eventually(lambda: scraped(address, "tidegate_items_total") == 200, "twenty records")

    process.send_signal(how)
    assert process.wait(PATIENCE_S) == (-signal.SIGKILL if how is signal.SIGKILL else 0)
    process.stdout.close()  # type: ignore[union-attr]
    world.tell("a", 20)
    world.tell("a", 21)
    again, address = start_collector(world.url)

    try:
        assert scraped(address, "tidegate_items_total") == 210
        assert scraped(address, "tidegate_collector_duplicates_total") == 1
    finally:
        again.terminate()
        assert again.wait(PATIENCE_S) == 0
        again.stdout.close()  # type: ignore[union-attr]
