"""Producers that die leave no job open for ever; producers that are only slow are left in peace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate.app import Tidegate
from tidegate.ledger.keys import job_key
from tidegate.ledger.redis import RedisLedger
from tidegate.model.outcome import JobState
from tidegate.producer import liveness
from tidegate.producer.drive import drive
from tidegate.producer.submission import Submission
from tidegate.worker.sweeper import Sweeper

Make = Callable[..., Submission]

_PRODUCER = """
    import sys
    from tidegate import Tidegate

    gate = Tidegate(sys.argv[1], silent_producer_s=60)
    gate.task(name="double")(abs)

    def items():
        yield from range(5_000)
        print("half", flush=True)
        sys.stdin.read()

    gate.map("double", items(), batch_size=10)
"""


def _sweeper(ledger: RedisLedger) -> Sweeper:
    return Sweeper(ledger=ledger, worker="w", slots=4, sweep_s=0.01, send_tickets=lambda *_: None, facts=dict)


def _sweep_until(ledger: RedisLedger, holds: Callable[[], bool]) -> None:
    sweeper, deadline = _sweeper(ledger), time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        sweeper.turn()
        time.sleep(0.02)


def test_the_job_of_a_killed_producer_runs_what_came_and_ends(
    ledger_url: str, ledger: RedisLedger, hand: Any, tmp_path: Path
) -> None:
    script = tmp_path / "producer.py"
    script.write_text(textwrap.dedent(_PRODUCER))
    command = [sys.executable, str(script), ledger_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as producer:
        assert producer.stdout is not None
        assert producer.stdout.readline() == b"half\n"
        job_id = ledger.jobs()[0].job_id
        _sweeper(ledger).turn()
        assert ledger.progress(job_id).state is JobState.OPEN
        os.kill(producer.pid, signal.SIGKILL)
    with RedisLedger.from_url(ledger_url, skew_ms=61_000) as a_minute_later:
        _sweep_until(a_minute_later, lambda: ledger.progress(job_id).cut_short)
    hand.tickets.clear()  # sweeps may have replaced them
    hand.settle_all(job_id)
    stands = ledger.progress(job_id)
    assert stands.state is JobState.DONE
    assert 0 < stands.total <= 5_000
    assert stands.done == stands.total
    assert "producer was silent" in stands.reason
    with Tidegate(ledger_url) as gate:
        assert "cut short" in str(gate.job(job_id).report())


def test_a_source_that_takes_its_time_is_no_dead_producer(
    ledger: RedisLedger, hand: Any, submission: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next item comes after several times the silence that is allowed; sweeps go on meanwhile. The ledger's clock is put
    forward by most of that silence, again and again, and each time the producer is given time to be heard."""
    assert liveness._WORDS >= 2, "it speaks before its time is over"
    monkeypatch.setattr(liveness, "_WORDS", 3_000)  # every 20 ms, while its time is a minute: nobody is that slow
    slow = submission(fixed=10, silent_s=60.0)
    states: list[JobState] = []

    def heard_ms() -> int:
        return int(ledger.client.hget(job_key(slow.spec.job_id, "meta"), "fed_ms"))

    def items() -> Iterator[int]:
        yield from range(2_000)
        for _ in range(5):
            before_ms = heard_ms()
            ledger._caller.skew_ms += 40_000
            _sweep_until(ledger, lambda before_ms=before_ms: heard_ms() >= before_ms + 40_000)
            _sweeper(ledger).turn()
            states.append(ledger.progress(slow.spec.job_id).state)
        yield 2_000

    drive(slow, items())
    assert states == [JobState.OPEN] * 5
    hand.tickets.clear()  # sweeps may have replaced them
    hand.settle_all(slow.spec.job_id)
    assert ledger.progress(slow.spec.job_id).done == 2_001


def test_a_producer_that_was_thought_dead_goes_on(
    ledger: RedisLedger, hand: Any, submission: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that slept: the job was sealed meanwhile, its items ran, and it is complete in the end."""
    monkeypatch.setattr("tidegate.producer.liveness.Liveness.start", lambda _: None)
    slept = submission(fixed=10, silent_s=0.1)

    def items() -> Iterator[int]:
        yield from range(2_000)
        _sweep_until(ledger, lambda: ledger.progress(slept.spec.job_id).cut_short)
        hand.tickets.clear()  # sweeps may have replaced them
        hand.settle_all(slept.spec.job_id)
        assert ledger.progress(slept.spec.job_id).state is JobState.DONE
        yield from range(2_000, 4_000)

    drive(slept, items())
    hand.tickets.clear()  # sweeps may have replaced them
    hand.settle_all(slept.spec.job_id)
    stands = ledger.progress(slept.spec.job_id)
    assert (stands.state, stands.done, stands.cut_short) == (JobState.DONE, 4_000, False)
    assert hand.seen == {number: number for number in range(4_000)}


def test_an_interrupted_submission_with_an_id_is_gone_on_with_even_after_it_ended(
    ledger_url: str, ledger: RedisLedger, hand: Any
) -> None:
    with Tidegate(ledger_url, silent_resumable_s=0.2) as gate:
        double = gate.task(name="double")(abs)

        def breaks() -> Iterator[int]:
            yield from range(30_000)
            raise OSError("the network broke")

        with pytest.raises(OSError, match="the network broke"):
            double.map(breaks(), id="nightly", batch_size=100)
        job = gate.job("nightly")
        _sweep_until(ledger, lambda: job.progress().cut_short)
        hand.tickets.clear()  # sweeps may have replaced them
        hand.settle_all(job.id)
        assert job.progress().state is JobState.DONE
        double.map(range(40_000), id="nightly", batch_size=100)
        hand.tickets.clear()  # sweeps may have replaced them
        hand.settle_all(job.id)
        stands = job.progress()
    assert (stands.state, stands.done, stands.cut_short) == (JobState.DONE, 40_000, False)
    assert hand.seen == {number: number for number in range(40_000)}
