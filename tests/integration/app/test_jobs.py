"""What a user holds: tasks mapped to jobs, run by a worker in this process through a real ledger."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator

import pytest
from celery import Celery

from tidegate import ConfigurationError, JobNotFound, JobState, Outcome, Retry, Tidegate, current_item
from tidegate.testing import InProcessWorker, drain


@pytest.fixture
def gate(ledger_url: str) -> Iterator[Tidegate]:
    gate = Tidegate(ledger_url)
    yield gate
    gate.close()


@pytest.fixture
def inline(gate: Tidegate) -> Iterator[Tidegate]:
    with gate.inline():
        yield gate


def test_sync_and_async_functions_give_values_by_index(inline: Tidegate) -> None:
    @inline.task
    def double(number: int) -> int:
        return 2 * number

    @inline.task(concurrency=10)
    async def triple(number: int) -> int:
        await asyncio.sleep(0)
        return 3 * number

    assert dict(double.map(range(500)).results()) == {number: 2 * number for number in range(500)}
    assert dict(triple.map(range(500)).results()) == {number: 3 * number for number in range(500)}


def test_starmap_spreads_arguments(inline: Tidegate) -> None:
    @inline.task
    def power(base: int, exponent: int) -> int:
        return base**exponent

    assert sorted(power.starmap([(2, 3), (3, 2)]).results()) == [(0, 8), (1, 9)]


def test_a_job_is_found_again_by_its_id(inline: Tidegate) -> None:
    task = inline.task(lambda number: number)
    job = task.map([1, 2], id="yesterday's prices")

    again = inline.job("yesterday's prices")

    assert again == job == inline.job(job.id)
    assert again.progress().state is JobState.DONE
    assert [stands.job_id for stands in inline.jobs()] == [job.id]
    with pytest.raises(JobNotFound):
        inline.job("tomorrow's").progress()


def test_failures_keep_arguments_error_trace_and_attempts(inline: Tidegate) -> None:
    @inline.task(retry=Retry(attempts=3, base=0.001, not_on=(KeyError,)))
    def picky(order: dict[str, int]) -> int:
        if order["n"] == 1:
            raise ValueError("one is odd")
        if order["n"] == 2:
            raise KeyError("two")
        return order["n"]

    job = picky.map([{"n": number} for number in range(4)])

    one, two = sorted(job.failures(), key=lambda failure: failure.index)
    assert (one.index, one.error_type, one.message, one.attempts) == (1, "ValueError", "one is odd", 3)
    assert one.arguments == {"n": 1}
    assert 'raise ValueError("one is odd")' in one.traceback
    assert __file__ in one.traceback
    assert len(one.history) == 2
    assert (two.index, two.error_type, two.attempts) == (2, "KeyError", 1)
    assert job.errors() == {"ValueError": 1, "KeyError": 1}
    assert dict(job.results()) == {0: 0, 3: 3}
    stands = job.progress()
    assert stands.outcomes[Outcome.FAILED] == 2
    assert stands.retries == 2


def test_results_stream_while_the_job_runs(gate: Tidegate) -> None:
    """The first value is there before the last item has been started."""
    first_seen = threading.Event()
    begun = itertools.count()

    @gate.task(concurrency=1, batch_size=1)
    def wait_for_reader(number: int) -> int:
        if next(begun):  # all but the first to run, whichever it is: several slots claim batches at once
            assert first_seen.wait(60)
        return number

    job = wait_for_reader.map(range(3))
    with InProcessWorker(gate):
        results = job.results()
        first = next(results)
        assert job.progress().pending
        first_seen.set()

        assert sorted([first, *results]) == [(0, 0), (1, 1), (2, 2)]


def test_coroutines_have_their_own_ways_to_wait_and_read(gate: Tidegate) -> None:
    task = gate.task(lambda number: number + 1)

    async def all_of_it() -> list[tuple[int, int]]:
        job = await task.amap(range(100))
        stands = await job.await_done(timeout=60)
        assert stands.ended
        return [pair async for pair in job.aresults()]

    with InProcessWorker(gate):
        assert sorted(asyncio.run(all_of_it())) == [(number, number + 1) for number in range(100)]


def test_a_job_without_results_says_so(inline: Tidegate) -> None:
    task = inline.task(lambda number: number)
    job = task.map([1], keep_results=False)

    assert job.progress().outcomes[Outcome.SUCCEEDED] == 1
    with pytest.raises(ConfigurationError, match="keeps no results"):
        list(job.results())


def test_waiting_gives_up_after_its_timeout_and_the_job_goes_on(gate: Tidegate) -> None:
    job = gate.task(lambda number: number).map([1])

    with pytest.raises(TimeoutError, match="1 items are pending"):
        job.wait(timeout=0.05)

    with InProcessWorker(gate):
        assert job.wait(timeout=60).state is JobState.DONE


def test_a_cancelled_job_ends_and_its_items_are_cancelled(gate: Tidegate) -> None:
    job = gate.task(lambda number: number).map(range(10))

    stands = job.cancel("not needed")

    assert stands.state is JobState.CANCELLED
    assert stands.outcomes[Outcome.CANCELLED] == 10
    assert stands.reason == "not needed"
    assert job.cancel().state is JobState.CANCELLED  # may be repeated
    assert job.wait(timeout=60).ended
    assert list(job.results()) == []


def test_a_paused_job_waits_and_a_resumed_one_goes_on(gate: Tidegate) -> None:
    task = gate.task(lambda number: number)
    paused, other = task.map(range(10)), task.map(range(10))
    assert paused.pause().paused

    with InProcessWorker(gate):
        other.wait(timeout=60)
        assert paused.progress().pending == 10

        assert not paused.resume().paused
        assert paused.wait(timeout=60).outcomes[Outcome.SUCCEEDED] == 10


@pytest.fixture
def unlucky(inline: Tidegate) -> tuple[Tidegate, set[int]]:
    """An app whose task fails for the numbers in the set."""
    bad = {1, 2, 3}

    @inline.task(name="unlucky")
    def unlucky(number: int, *more: int) -> int:
        if number in bad:
            raise ValueError("bad") if number < 3 else KeyError("worse")
        return number + sum(more)

    return inline, bad


def test_replay_runs_the_failed_items_again_as_a_linked_job(unlucky: tuple[Tidegate, set[int]]) -> None:
    gate, bad = unlucky
    job = gate.find_task("unlucky").map(range(5))
    assert job.progress().outcomes[Outcome.FAILED] == 3
    bad.clear()

    again = job.replay()

    stands = again.progress()
    assert stands.spec is not None
    assert stands.spec.replay_of == job.id
    assert sorted(value for _, value in again.results()) == [1, 2, 3]
    assert job.replay() == again  # asked again, it is the same job, and nothing runs twice
    assert again.progress().attempts == stands.attempts


def test_replay_takes_an_error_type_an_outcome_or_indexes(unlucky: tuple[Tidegate, set[int]]) -> None:
    gate, bad = unlucky
    job = gate.find_task("unlucky").map(range(5))
    bad.clear()

    def values(**selection: object) -> list[int]:
        return sorted(value for _, value in job.replay(**selection).results())  # type: ignore[arg-type]

    assert values(error_type="ValueError") == [1, 2]
    assert values(error_type="KeyError") == [3]
    assert values(indexes=[2, 3, 4]) == [2, 3]
    assert values(outcome="timed_out") == []
    assert values(outcome=Outcome.FAILED) == [1, 2, 3]


def test_replay_keeps_the_shape_of_items(unlucky: tuple[Tidegate, set[int]]) -> None:
    gate, bad = unlucky
    job = gate.find_task("unlucky").starmap([(1, 10), (4, 40)])
    bad.clear()

    assert [value for _, value in job.replay().results()] == [11]


def test_replay_of_a_job_that_runs_is_refused(gate: Tidegate) -> None:
    job = gate.task(lambda number: number).map([1])

    with pytest.raises(ConfigurationError, match="has not ended"):
        job.replay()


def test_a_job_remembers_the_item_that_enqueued_it(inline: Tidegate) -> None:
    """Jobs from jobs: a report can follow the chain back."""
    child = inline.task(name="child")(lambda number: number)
    seen: list[str] = []

    @inline.task(name="parent")
    def parent(number: int) -> str:
        item = current_item()
        assert item is not None
        seen.append(item.idempotency_key)
        with Tidegate(inline.url) as other:
            return other.task(name="child")(child.function).map([number]).id

    job = parent.map([7])

    ((_, child_id),) = job.results()
    spec = inline.job(child_id).progress().spec
    assert spec is not None
    assert spec.origin.parent_job == job.id
    assert seen == [f"{job.id}:0"]


def test_existing_celery_tasks_are_mapped(ledger_url: str) -> None:
    celery = Celery("shop", set_as_current=False)

    @celery.task(name="shop.add", bind=True, shared=False)
    def add(self: object, one: int, two: int = 1) -> int:
        return one + two

    gate = Tidegate(ledger_url, celery=celery)
    with gate.inline():
        assert sorted(gate.map(add, [1, 2]).results()) == [(0, 2), (1, 3)]
        assert sorted(gate.map("shop.add", [5]).results()) == [(0, 6)]


def test_drain_runs_what_was_submitted_earlier(gate: Tidegate) -> None:
    task = gate.task(lambda number: number)
    jobs = [task.map(range(20)), task.map(range(20))]
    paused = task.map(range(5))
    paused.pause()

    ended = drain(gate)

    assert {stands.job_id for stands in ended} == {job.id for job in jobs}
    assert all(stands.outcomes[Outcome.SUCCEEDED] == 20 for stands in ended)
    assert paused.progress().pending == 5
    assert drain(gate) == []


def test_inline_without_a_server_uses_a_private_one(tmp_path: object) -> None:
    gate = Tidegate()
    task = gate.task(lambda number: 2 * number)

    with gate.inline():
        url = gate.url
        assert sorted(task.map([1, 2]).results()) == [(0, 2), (1, 4)]

    assert url.startswith("unix://")
    assert gate._url == ""


def test_inline_leaves_no_thread_behind(gate: Tidegate) -> None:
    task = gate.task(lambda number: number)
    with gate.inline():
        task.map([1])
    before = set(threading.enumerate())

    with gate.inline():
        task.map([1])

    for thread in set(threading.enumerate()) - before:
        thread.join(60)  # one that is told to end may need a moment, and nobody waits long for it
    assert set(threading.enumerate()) <= before


def test_what_cannot_travel_fails_in_inline_mode_as_it_would_in_production(inline: Tidegate) -> None:
    task = inline.task(lambda number: object())

    job = task.map([1])

    assert job.errors() == {"PayloadError": 1}
