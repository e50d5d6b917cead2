"""Sentinel: the address names a service, and the ledger follows its primary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tidegate.embedded import EmbeddedServer
from tidegate.errors import LedgerUnavailable
from tidegate.ledger.connection import connect
from tidegate.ledger.port import Lease, Settlement
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import BatchPayload, JobSpec, new_job_id
from tidegate.model.outcome import Outcome

PASSWORD = "shared"
PATIENCE_S = 60


class Pair:
    """A primary, its replica, and a sentinel that watches them."""

    def __init__(self, folder: Path, sentinel: Callable[[int | None, str], int]) -> None:
        self.primary, self.replica = (EmbeddedServer(folder / name, port=0) for name in ("a", "b"))
        for server in (self.primary, self.replica):
            server.start()
            server.client().config_set("masterauth", PASSWORD)
            server.client().config_set("requirepass", PASSWORD)
        self.port = urlsplit(self.primary.url).port
        with connect(f"redis://:{PASSWORD}@127.0.0.1:{urlsplit(self.replica.url).port}/0") as replica:
            replica.replicaof("127.0.0.1", self.port)
        self.sentinel_port = sentinel(self.port, PASSWORD)

    @property
    def url(self) -> str:
        return f"sentinel://:{PASSWORD}@127.0.0.1:1,127.0.0.1:{self.sentinel_port}/main/0"

    def stop(self) -> None:
        self.primary.stop()
        self.replica.stop()


@pytest.fixture
def pair(tmp_path: Path, sentinel: Callable[[int | None, str], int]) -> Iterator[Pair]:
    pair = Pair(tmp_path, sentinel)
    yield pair
    pair.stop()


def until_it_answers(call):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except LedgerUnavailable:
            assert time.monotonic() < deadline, "the ledger did not come back"


def test_the_ledger_follows_a_failover_and_the_holder_of_a_lease_goes_on(pair: Pair) -> None:
    with RedisLedger.from_url(pair.url) as ledger, connect(f"redis://:{PASSWORD}@127.0.0.1:{pair.port}/0") as admin:
        job_id = new_job_id()
        until_it_answers(lambda: ledger.open(JobSpec(job_id=job_id, task="t")))
        ticket = ledger.append(job_id, 0, [BatchPayload(2, b"x")] * 2).tickets[0]
        ledger.seal(job_id, 1)
        lease = ledger.claim(job_id, ticket=ticket, claimer="w", nonce="n1", lease_ms=600_000)
        assert isinstance(lease, Lease)
        while not admin.set("last", 1) or admin.wait(1, 1000) < 1:
            pass  # WAIT waits for what its own connection wrote, and for all that came before
        while not _knows_replica(pair):
            time.sleep(0.05)  # a sentinel offers no event for it
        pair.primary.kill()

        done = Settlement(settled=2, outcomes={Outcome.SUCCEEDED: 2}, executions=2)
        answer = until_it_answers(
            lambda: ledger.commit(lease, done, nonce="n2", lease_ms=600_000, claim_next=True, ticket=ticket)
        )
        assert isinstance(answer.next, Lease)
        assert ledger.commit(answer.next, done, nonce="n3", lease_ms=600_000).job_done
        progress = ledger.progress(job_id)
        assert (progress.done, progress.attempts, progress.lost_leases) == (4, 4, 0)


def _knows_replica(pair: Pair) -> bool:
    with connect(f"redis://127.0.0.1:{pair.sentinel_port}") as sentinel:
        state = sentinel.sentinel_master("main")
    return int(state.get("num-slaves", 0)) > 0
