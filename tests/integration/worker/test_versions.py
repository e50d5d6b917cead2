"""Producers and workers of different versions: what a worker cannot read it leaves alone, and says so; the rest goes on."""

from __future__ import annotations

import msgspec
import pytest
from worker_site import Site, wait_until

from tidegate.ledger.keys import job_key
from tidegate.model.outcome import JobState
from tidegate.model.wire import WIRE_VERSION


def _submitted(site: Site, items: int = 40) -> object:
    return site.task("double").map(range(items), batch_size=10)


@pytest.mark.parametrize("layout", ["0", "2"])
def test_a_job_of_an_older_or_newer_layout_is_left_alone_and_others_go_on(site: Site, layout: str) -> None:
    """Its keys may mean something else: nothing of it is touched, not even to park it; workers that know it will run it."""
    client = site.gate.ledger().client  # type: ignore[attr-defined]
    strange, plain = _submitted(site), _submitted(site)
    client.hset(job_key(strange.id, "meta"), "layout", layout)
    before = client.hgetall(job_key(strange.id, "meta"))
    tree = site.start(sweep_s=0.1).ready()
    plain.wait(timeout=60)
    wait_until(lambda: f"layout {layout}" in tree.log, "the worker says so")
    after_a_while = _submitted(site)
    after_a_while.wait(timeout=60)
    assert tree.log.count(f"job={strange.id}") <= 10, "once in a while, not at every sweep"
    assert client.hgetall(job_key(strange.id, "meta")) == before
    assert site.testimony(strange).executions == 0
    client.hset(job_key(strange.id, "meta"), "layout", "1")  # as a worker of the right version would find it
    strange.wait(timeout=60)
    assert site.outcomes(strange) == {"succeeded": 40}
    assert tree.stop() == 0


def test_a_payload_of_a_newer_wire_form_parks_its_job_until_workers_are_upgraded(site: Site) -> None:
    client = site.gate.ledger().client  # type: ignore[attr-defined]
    job = _submitted(site, 10)
    key = job_key(job.id, "payloads")
    payload = client.hget(key, 0)
    _, *rest = msgspec.msgpack.decode(payload)
    newer = msgspec.msgpack.encode([WIRE_VERSION + 1, *rest])
    client.hset(key, 0, newer)
    site.start().ready()
    # Parked comes first and the batch is handed back after it, else a worker would claim it again at once.
    stands = wait_until(
        lambda: (s := job.progress()).state is JobState.PARKED and not s.running_batches and s,
        "the job is parked and nobody holds its batch",
    )
    assert "upgrade the workers" in stands.reason
    assert stands.pending == 10
    client.hset(key, 0, payload)
    job.resume()
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 10}


def test_what_a_newer_producer_says_beyond_what_is_known_here_does_no_harm(site: Site) -> None:
    """A job's manifest with fields that this version does not have, as a later minor version writes it."""
    client = site.gate.ledger().client  # type: ignore[attr-defined]
    job = _submitted(site)
    key = job_key(job.id, "meta")
    spec = msgspec.msgpack.decode(client.hget(key, "spec"))
    client.hset(key, "spec", msgspec.msgpack.encode({**spec, "invented_later": {"x": 1}}))
    site.start().ready()
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 40}
