"""Single calls: each gets its answer, together they travel in few batches, and no job is left open."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidegate import ExecutorClosed, JobFailed, JobState, Outcome, PayloadError, PayloadTooLarge, Retry, Tidegate
from tidegate.embedded import EmbeddedServer
from tidegate.producer import calls
from tidegate.testing import InProcessWorker


@pytest.fixture
def gate(ledger_url: str) -> Iterator[Tidegate]:
    with Tidegate(ledger_url, max_batch_bytes=10_000) as gate:
        yield gate


@pytest.fixture
def working(gate: Tidegate) -> Iterator[Tidegate]:
    """The app with a worker; its tasks are registered by the test, before the first call."""
    with InProcessWorker(gate, gate.settings.queue):
        yield gate


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # the ledger's state changes in other threads, which offer no event


def test_a_call_is_answered_with_its_value(working: Tidegate) -> None:
    @working.task
    def power(base: int, *, exponent: int = 2) -> int:
        return base**exponent

    assert power.submit(3).result(timeout=60) == 9
    assert power.submit(2, exponent=5).result(timeout=60) == 32


def test_coroutines_await_their_answers(working: Tidegate) -> None:
    @working.task
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async def many() -> list[int]:
        return await asyncio.gather(*(double.asubmit(number) for number in range(50)))

    assert asyncio.run(many()) == [2 * number for number in range(50)]


def test_calls_made_together_travel_together(working: Tidegate) -> None:
    task = working.task(lambda number: number + 1)

    answers = [task.submit(number) for number in range(2000)]

    assert [answer.result(timeout=60) for answer in answers] == list(range(1, 2001))
    assert sum(stands.batches for stands in working.jobs()) < 1000
    assert sum(stands.total for stands in working.jobs()) == 2000


def test_many_threads_may_call_at_once(working: Tidegate) -> None:
    task = working.task(lambda number: -number)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: task.submit(number).result(timeout=60), range(400)))

    assert answers == [-number for number in range(400)]


def test_a_failure_is_raised_where_the_value_is_asked_for(working: Tidegate) -> None:
    @working.task(retry=Retry(attempts=2, base=0.001))
    def picky(number: int) -> int:
        if number:
            raise ValueError("not that one")
        return number

    bad, good = picky.submit(1), picky.submit(0)

    with pytest.raises(JobFailed, match="ValueError: not that one") as caught:
        bad.result(timeout=60)
    assert caught.value.facts["attempts"] == 2
    assert caught.value.facts["outcome"] is Outcome.FAILED
    assert 'raise ValueError("not that one")' in caught.value.facts["traceback"]
    assert good.result(timeout=60) == 0


def test_arguments_that_cannot_travel_are_refused_at_once(gate: Tidegate) -> None:
    """And nothing is written: not even a job is opened."""
    task = gate.task(print)

    with pytest.raises(PayloadError, match="arguments cannot be encoded"):
        task.submit(object())
    with pytest.raises(PayloadTooLarge, match="over the limit of 10,000"):
        task.submit("x" * 10_000)
    assert gate.jobs() == []


def test_arguments_that_are_too_large_only_together_travel_apart(working: Tidegate) -> None:
    task = working.task(len)

    answers = [task.submit("x" * 6000) for _ in range(50)]

    assert [answer.result(timeout=60) for answer in answers] == [6000] * 50


def test_an_answer_that_does_not_come_is_waited_for_as_long_as_wanted(gate: Tidegate) -> None:
    answer = gate.task(lambda number: number).submit(1)

    with pytest.raises(TimeoutError):
        answer.result(timeout=0.05)

    assert not answer.cancel()  # it is on its way
    with InProcessWorker(gate):
        assert answer.result(timeout=60) == 1


def test_cancelling_the_job_answers_its_calls(gate: Tidegate) -> None:
    answer = gate.task(lambda number: number).submit(1)
    _wait_until(lambda: any(stands.total for stands in gate.jobs()))

    gate.job(answer.job_id).cancel("stop")

    with pytest.raises(JobFailed, match="was cancelled with its job") as caught:
        answer.result(timeout=60)
    assert caught.value.facts["outcome"] is Outcome.CANCELLED


def test_closing_the_app_seals_the_job_and_answers_the_calls(ledger_url: str) -> None:
    gate = Tidegate(ledger_url)
    answer = gate.task(lambda number: number).submit(1)

    gate.close()

    with pytest.raises(ExecutorClosed, match="closed before the answer came"):
        answer.result(timeout=60)
    assert gate.job(answer.job_id).progress().state is JobState.SEALED
    gate.close()


def test_a_job_of_calls_ends_when_it_is_full_or_idle(working: Tidegate, monkeypatch: pytest.MonkeyPatch) -> None:
    """No job grows without bound, and every job ends."""
    monkeypatch.setattr(calls, "_CALLS_PER_JOB", 10)
    monkeypatch.setattr(calls, "_IDLE_S", 600.0)
    task = working.task(lambda number: number)

    answers = [task.submit(number) for number in range(35)]
    assert [answer.result(timeout=60) for answer in answers] == list(range(35))

    assert [answer.job_id for answer in answers] == [answers[number // 10 * 10].job_id for number in range(35)]
    assert len({answer.job_id for answer in answers}) == 4
    monkeypatch.setattr(calls, "_IDLE_S", 0.2)
    assert task.submit(35).result(timeout=60) == 35  # from now on the patience is short
    _wait_until(lambda: all(stands.state is JobState.DONE for stands in working.jobs()))
    seen = {stands.job_id for stands in working.jobs()}
    last = task.submit(99)
    assert last.result(timeout=60) == 99
    assert last.job_id not in seen  # a new job is opened by the next call


def test_calls_leave_no_thread_behind(working: Tidegate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_IDLE_S", 0.05)
    task = working.task(lambda number: number)

    assert task.submit(1).result(timeout=60) == 1

    _wait_until(lambda: not any(thread.name.startswith("tidegate-calls") for thread in threading.enumerate()))


def test_answers_come_after_the_server_was_away(own_server: EmbeddedServer) -> None:
    with Tidegate(own_server.url) as gate:
        task = gate.task(lambda number: 3 * number)
        answer = task.submit(1)
        _wait_until(lambda: any(stands.total for stands in gate.jobs()))
        own_server.stop()
        own_server.start()

        with InProcessWorker(gate):
            assert answer.result(timeout=60) == 3
            assert task.submit(2).result(timeout=60) == 6


def test_inline_mode_answers_calls_too(gate: Tidegate) -> None:
    task = gate.task(lambda number: number)

    with gate.inline():
        assert task.submit(5).result(timeout=60) == 5


def test_a_script_that_ends_right_after_a_call_has_submitted_it(tmp_path: Path, ledger_url: str) -> None:
    script = tmp_path / "fire.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from tidegate import Tidegate

            gate = Tidegate(sys.argv[1])

            @gate.task
            def double(number):
                return 2 * number

            for number in range(10):
                double.submit(number)
            """
        )
    )
    subprocess.run([sys.executable, str(script), ledger_url], check=True, timeout=200)

    with Tidegate(ledger_url) as gate:
        (stands,) = gate.jobs()
        assert (stands.total, stands.state) == (10, JobState.SEALED)
