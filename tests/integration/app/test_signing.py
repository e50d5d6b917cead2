"""With a signing key, workers run what a holder of the key submitted and nothing else, whoever can write to the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tidegate.app import Tidegate
from tidegate.errors import ConfigurationError
from tidegate.job import Job
from tidegate.ledger.keys import job_key
from tidegate.model.job import Progress
from tidegate.model.outcome import JobState
from tidegate.model.wire import Shape, encode_items
from tidegate.telemetry.quarantine import Quarantine
from tidegate.testing.inline import InProcessWorker
from tidegate.worker import transport

KEY = "the first key of this test"
OTHER = "another key of this test"
PATIENCE_S = 90.0


class Site:
    """Apps with one task on one server, each with the keys of its choice."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.gates: list[Tidegate] = []

    def gate(self, signing_key: str | None) -> Tidegate:
        gate = Tidegate(self.url, signing_key=signing_key)
        gate.task(name="app.double")(lambda number: 2 * number)
        gate.task(name="app.erase")(lambda number: f"erased {number}")
        self.gates.append(gate)
        return gate

    def submit(self, signing_key: str | None, items: int = 20) -> Job[Any]:
        return self.gate(signing_key).map("app.double", range(items), batch_size=10)

    def run(self, job: Job[Any], signing_key: str | None) -> Progress:
        """Let a worker with these keys work on the job until it ends or is parked."""
        with InProcessWorker(self.gate(signing_key)):
            for stands in job.follow(timeout=PATIENCE_S):
                if stands.ended or stands.state is JobState.PARKED:
                    return stands
        raise AssertionError

    def client(self) -> Any:
        return self.gates[0].ledger().client  # type: ignore[attr-defined]


@pytest.fixture
def site(ledger_url: str) -> Iterator[Site]:
    made = Site(ledger_url)
    yield made
    for gate in made.gates:
        gate.close()


def _refused(site: Site, job: Job[Any], signing_key: str, why: str, *, first_intact: int = 20) -> Progress:
    """Nobody runs it: parked with what to do, counted, and kept in the quarantine. Items from ``first_intact`` on are in a
    batch that nobody touched, which another slot may have run before the job was parked."""
    counted = transport.refusals.count
    stands = site.run(job, signing_key)
    assert stands.state is JobState.PARKED
    assert why in stands.reason
    assert "resume the job" in stands.reason
    assert stands.attempts <= 20 - first_intact
    assert transport.refusals.count > counted
    kept = Quarantine(site.client()).newest(10)
    assert any(why in refusal.reason and job.id in refusal.reason for refusal in kept)
    return stands


def test_a_signed_job_runs(site: Site) -> None:
    job = site.submit(KEY)
    assert site.run(job, KEY).state is JobState.DONE
    assert dict(job.results()) == {number: 2 * number for number in range(20)}


def test_single_calls_and_replays_are_signed_too(site: Site) -> None:
    gate = site.gate(KEY)

    def fail(number: int) -> int:
        raise ValueError(number)

    task = gate.task(name="app.fail")(fail)
    with InProcessWorker(gate):
        assert gate.tasks["app.double"].submit(4).result(PATIENCE_S) == 8
        job = task.map(range(3), batch_size=2)
        job.wait(PATIENCE_S)
        again = job.replay()
        assert again.wait(PATIENCE_S).state is JobState.DONE


def test_an_unsigned_job_is_refused(site: Site) -> None:
    job = site.submit(None)
    _refused(site, job, KEY, "the batch is not signed")


def test_a_job_of_another_key_is_refused_and_runs_once_the_key_is_known(site: Site) -> None:
    job = site.submit(OTHER)
    _refused(site, job, KEY, "signed with another key")
    job.resume()
    assert site.run(job, f"{KEY},{OTHER}").state is JobState.DONE


def test_keys_are_changed_while_jobs_run(site: Site) -> None:
    """Workers learn the new key first, producers sign with it next, and the old one goes when its jobs have ended."""
    old, new = site.submit(OTHER), site.submit(f"{KEY},{OTHER}")
    assert site.run(old, f"{KEY},{OTHER}").state is JobState.DONE
    assert site.run(new, KEY).state is JobState.DONE


def test_a_worker_without_a_key_runs_signed_jobs(site: Site) -> None:
    """Or else keys could not be given to producers first."""
    job = site.submit(KEY)
    assert site.run(job, None).state is JobState.DONE
    assert dict(job.results()) == {number: 2 * number for number in range(20)}


def test_an_altered_payload_is_refused(site: Site) -> None:
    job = site.submit(KEY)
    payload = bytearray(site.client().hget(job_key(job.id, "payloads"), 0))
    payload[-1] ^= 1
    site.client().hset(job_key(job.id, "payloads"), 0, bytes(payload))
    _refused(site, job, KEY, "the batch was altered", first_intact=10)


def test_a_payload_in_the_place_of_another_is_refused(site: Site) -> None:
    """It is well signed, but items 10 to 19 are not items 0 to 9, nor those of another job."""
    job = site.submit(KEY)
    second = site.client().hget(job_key(job.id, "payloads"), 1)
    site.client().hset(job_key(job.id, "payloads"), 0, second)
    _refused(site, job, KEY, "the batch was altered", first_intact=10)
    other = site.submit(KEY)
    site.client().hset(job_key(other.id, "payloads"), 1, second)
    assert "the batch was altered" in site.run(other, KEY).reason


def test_a_task_that_was_exchanged_is_refused(site: Site) -> None:
    job = site.submit(KEY)
    site.client().hset(job_key(job.id, "meta"), "task", "app.erase")
    _refused(site, job, KEY, "the batch was altered")


def test_an_altered_manifest_is_refused(site: Site) -> None:
    job = site.submit(KEY)
    spec = job.progress().spec
    assert spec is not None
    altered = msgspec.structs.replace(spec, keep_results=False)
    site.client().hset(job_key(job.id, "meta"), "spec", msgspec.msgpack.encode(altered))
    _refused(site, job, KEY, "the job's manifest was altered")
    for signature, why in (("", "manifest is not signed"), ("é" * 64, "manifest was altered")):
        job = site.submit(KEY)
        forged = msgspec.structs.replace(spec, job_id=job.id, signature=signature)
        site.client().hset(job_key(job.id, "meta"), "spec", msgspec.msgpack.encode(forged))
        _refused(site, job, KEY, why)


def test_a_job_that_a_stranger_put_into_the_ledger_is_refused(site: Site) -> None:
    """Everything of a signed job but its signature, with items of the stranger's choice."""
    job = site.submit(KEY)
    forged = encode_items(list(range(10)), Shape.ONE, max_bytes=1000)
    site.client().hset(job_key(job.id, "payloads"), 0, forged)
    _refused(site, job, KEY, "the batch is not signed", first_intact=10)


@pytest.mark.parametrize("secret", ["tiny", "", f"{KEY},,{OTHER}", f"{KEY},tiny"])
def test_a_key_that_can_be_guessed_is_refused_and_not_shown(ledger_url: str, secret: str) -> None:
    with pytest.raises(ConfigurationError, match="shorter than 16") as caught:
        Tidegate(ledger_url, signing_key=secret)
    assert not secret or secret not in str(caught.value)
    gate = Tidegate(ledger_url, signing_key=KEY)
    assert KEY not in f"{gate!r} {gate.settings!r} {gate.keyring!r} {gate.settings.model_dump_json()}"
