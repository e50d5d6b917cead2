"""Workers and a server that fails over, whose disk is full, or that is full when they start: they wait, say so, and go on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from worker_site import Site, wait_until

from tidegate import LedgerError, Tidegate
from tidegate.embedded import EmbeddedServer
from tidegate.errors import LedgerUnavailable
from tidegate.ledger.connection import connect

PASSWORD = "shared"


class Watched:
    """A primary, its replica, and a sentinel."""

    def __init__(self, folder: Path, sentinel: Callable[[int | None, str], int]) -> None:
        self.primary, self.replica = (EmbeddedServer(folder / name, port=0) for name in ("a", "b"))
        for server in (self.primary, self.replica):
            server.start()
            server.client().config_set("masterauth", PASSWORD)
            server.client().config_set("requirepass", PASSWORD)
        self.port = urlsplit(self.primary.url).port
        with self.replica_client() as replica:
            replica.replicaof("127.0.0.1", self.port)
        self.sentinel_port = sentinel(self.port, PASSWORD)

    @property
    def url(self) -> str:
        return f"sentinel://:{PASSWORD}@127.0.0.1:{self.sentinel_port}/main/0"

    def primary_client(self) -> Any:
        return connect(f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0")

    def replica_client(self) -> Any:
        return connect(f"redis://:{PASSWORD}@127.0.0.1:{urlsplit(self.replica.url).port}/0")

    def in_sync(self) -> bool:
        """Whether the sentinel knows the replica, and the replica has everything."""
        with self.primary_client() as primary, connect(f"redis://127.0.0.1:{self.sentinel_port}/0") as watching:
            if not watching.execute_command("SENTINEL", "REPLICAS", "main"):
                return False
            primary.set("last", 1)  # WAIT waits for what its own connection wrote, and for all that came before
            return primary.wait(1, 1000) == 1

    def stop(self) -> None:
        self.primary.stop()
        self.replica.stop()


@pytest.fixture
def watched(tmp_path: Path, sentinel: Callable[[int | None, str], int]) -> Iterator[Watched]:
    made = Watched(tmp_path, sentinel)
    yield made
    made.stop()


@pytest.mark.chaos
def test_workers_follow_a_failover_and_end_the_job(watched: Watched, tmp_path: Path) -> None:
    site = Site(watched.url, tmp_path)
    try:
        wait_until(lambda: _quietly(watched.in_sync), "the replica follows")
        tree = site.start(processes=2, lease_s=3, sweep_s=0.3).ready()
        items = 600
        job = site.task("nap").map([0.01] * items, batch_size=20)
        wait_until(lambda: job.progress().done > 50, "the job runs")
        wait_until(lambda: _quietly(watched.in_sync), "the replica has everything")
        children = tree.children()
        watched.primary.kill()
        wait_until(lambda: (stands := _stands(job)) and stands.ended, "the job ended on the new primary")
        with watched.replica_client() as promoted:
            assert promoted.info("replication")["role"] == "master"
        assert site.outcomes(job) == {"succeeded": items}
        assert sorted(index for index, _ in job.results()) == list(range(items))
        assert {child.pid for child in tree.children()} == {child.pid for child in children}, "nobody was replaced"
        assert tree.stop() == 0
    finally:
        site.close()


@pytest.mark.chaos
def test_a_full_disk_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    """The append-only file is on a disk of a few megabytes that somebody else fills."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=False, capture_output=True
    ).returncode:
        pytest.skip("a small disk cannot be mounted here (mount -t tmpfs)")
    try:
        with EmbeddedServer(disk / "valkey", persist=True) as server:
            site = Site(server.url, tmp_path)
            try:
                _run_on_a_full_disk(site, disk)
            finally:
                site.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _run_on_a_full_disk(site: Site, disk: Path) -> None:
    tree = site.start(lease_s=30).ready()
    items = 1_000
    job = site.task("nap").map([0.01] * items, batch_size=20)
    wait_until(lambda: job.progress().done > 20, "the job runs")
    filler = disk / "somebody else's"
    with filler.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 65536)
            except OSError:
                break
    wait_until(lambda: "ledger does not answer" in tree.log, "the worker noticed and waits")
    assert "cannot write to its disk" in tree.log
    with Tidegate(site.url) as gate:
        gate.task(name="other")(print)
        with pytest.raises(LedgerUnavailable, match="disk"):
            gate.map("other", [1])
    filler.unlink()
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": items}
    assert site.testimony(job).executed_again == 0
    wait_until(lambda: "ledger answers again" in tree.log, "it says so")
    assert tree.stop() == 0


@pytest.mark.parametrize("tickets", ["there", "lost"])
def test_a_worker_that_starts_while_the_server_is_full_drains_it(site: Site, tickets: str) -> None:
    """Accepted work is what makes room: who comes to help must not be kept out, nor need tickets that nobody can send."""
    client = site.gate.ledger().client  # type: ignore[attr-defined]
    job = site.task("double").map(range(400), batch_size=10)
    if tickets == "lost":
        client.delete("tidegate")
    client.config_set("maxmemory", "1mb")
    try:
        tree = site.start(processes=2, sweep_s=0.2)
        wait_until(lambda: job.progress().ended, "the job ended while the server was full")
        assert "consumer: Connection to broker lost" not in tree.log, tree.log
        assert "replaced in_s" not in tree.log, tree.log
    finally:
        client.config_set("maxmemory", "0")
    assert site.outcomes(job) == {"succeeded": 400}
    assert site.testimony(job).executed_again == 0
    after = site.task("double").map(range(100), batch_size=10)
    after.wait(timeout=60)
    assert tree.stop() == 0


def _quietly(call: Any) -> Any:
    try:
        return call()
    except Exception:
        return None


def _stands(job: Any) -> Any:
    try:
        return job.progress()
    except LedgerError:
        return None
