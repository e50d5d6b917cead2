"""``durable="fsync"``: confirmed means on the server's disk, and what a killed server forgot is not confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tidegate.app import Tidegate
from tidegate.embedded import EmbeddedServer
from tidegate.errors import ConfigurationError, LedgerLost, LedgerUnsuitable
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import JobSpec, new_job_id
from tidegate.model.outcome import JobState
from tidegate.producer.drive import drive
from tidegate.producer.sizing import BatchSizer
from tidegate.producer.submission import Submission, SubmissionOptions


@pytest.fixture
def safe_gate(own_server: EmbeddedServer) -> Iterator[Tidegate]:
    """An app on a server with an append-only file that the test may kill."""
    with Tidegate(own_server.url) as gate:
        gate.task(name="app.double")(abs)
        yield gate


def _durable_submission(ledger: RedisLedger) -> Submission:
    options = SubmissionOptions(max_batch_bytes=1 << 20, durable=True)
    return Submission(
        ledger, JobSpec(job_id=new_job_id(), task="app.f"), BatchSizer(fixed=10), lambda *_: None, options
    )


def test_a_confirmed_durable_job_is_whole_after_the_server_was_killed(
    safe_gate: Tidegate, own_server: EmbeddedServer
) -> None:
    job = safe_gate.map("app.double", range(5_000), batch_size=50, durable="fsync")
    own_server.kill()
    own_server.start()
    with RedisLedger.from_url(own_server.url) as after:
        stands = after.progress(job.id)
    assert (stands.total, stands.state) == (5_000, JobState.SEALED)


def test_a_coroutine_gets_the_same_confirmation(safe_gate: Tidegate, own_server: EmbeddedServer) -> None:
    task = safe_gate.tasks["app.double"]
    job = asyncio.run(task.amap(range(300), batch_size=50, durable="fsync", id="nightly"))
    again = asyncio.run(task.amap(range(300), batch_size=50, durable="fsync", id="nightly"))
    own_server.kill()
    own_server.start()
    with RedisLedger.from_url(own_server.url) as after:
        assert after.progress(job.id).total == 300
    assert again == job


def test_a_server_without_an_append_only_file_refuses_before_anything_is_written(ledger_url: str) -> None:
    with Tidegate(ledger_url) as gate:
        gate.task(name="app.double")(abs)
        with pytest.raises(LedgerUnsuitable, match="appendonly yes"):
            gate.map("app.double", range(10), durable="fsync")
        assert gate.jobs() == []
        assert gate.map("app.double", range(10), durable="memory").progress().total == 10


def test_another_word_for_durable_is_refused(ledger_url: str) -> None:
    with Tidegate(ledger_url) as gate:
        gate.task(name="app.double")(abs)
        with pytest.raises(ConfigurationError, match="fsync"):
            gate.map("app.double", [1], durable="disk")  # type: ignore[typeddict-item]


def test_a_seal_that_the_server_forgot_is_given_again(own_server: EmbeddedServer) -> None:
    """The server is killed between the seal and the confirmation, and had the seal in memory only."""
    with RedisLedger.from_url(own_server.url) as ledger:
        submission = _durable_submission(ledger)
        submission.add(list(range(10)))
        submission.finish()
        ledger.client.hset(
            f"tg:{{{submission.spec.job_id}}}:meta", "state", "open"
        )  # as after a restart without its end
        submission.confirm()
        assert ledger.progress(submission.spec.job_id).state is JobState.SEALED


def test_chunks_that_the_server_forgot_are_not_confirmed(own_server: EmbeddedServer) -> None:
    with RedisLedger.from_url(own_server.url) as ledger:
        submission = _durable_submission(ledger)
        finish = submission.finish

        def finish_and_lose() -> object:
            stands = finish()
            key = f"tg:{{{submission.spec.job_id}}}:meta"
            ledger.client.hset(key, mapping={"state": "open", "next_chunk": 0})
            return stands

        submission.finish = finish_and_lose  # type: ignore[assignment, method-assign]
        with pytest.raises(LedgerLost, match="submit it again"):
            drive(submission, range(10))
