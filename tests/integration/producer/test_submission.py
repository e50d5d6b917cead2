"""A submission is written once, whatever happens to the producer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tidegate.app import Tidegate
from tidegate.errors import ConfigurationError, JobEnded, PayloadError, PayloadTooLarge, SubmissionConflict
from tidegate.ledger.port import Appended
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import BatchPayload
from tidegate.model.outcome import JobState
from tidegate.model.wire import Shape
from tidegate.producer.drive import adrive, drive
from tidegate.producer.submission import Submission
from tidegate.task import Task

Make = Callable[..., Submission]


@pytest.fixture
def gate(ledger_url: str) -> Iterator[Tidegate]:
    gate = Tidegate(ledger_url)
    yield gate
    gate.close()


@pytest.fixture
def double(gate: Tidegate) -> Task[..., Any, Any]:
    return gate.task(lambda number: 2 * number)


def test_items_arrive_in_order_and_complete(hand: Any, submission: Make) -> None:
    split = submission(fixed=7)

    drive(split, (str(number) for number in range(100)))
    hand.settle_all(split.spec.job_id)

    assert hand.seen == {number: str(number) for number in range(100)}
    assert hand.batches == [7] * 14 + [2]


def test_chunks_are_bounded_in_bytes(ledger: RedisLedger, submission: Make) -> None:
    """One script call must not hold the server up: 5 MB go in several."""
    calls: list[int] = []
    append = ledger.append

    def noted(job_id: str, chunk: int, batches: Sequence[BatchPayload]) -> Appended:
        calls.append(sum(len(batch.data) for batch in batches))
        return append(job_id, chunk, batches)

    ledger.append = noted  # type: ignore[method-assign]
    drive(submission(fixed=1), ("x" * 100_000 for _ in range(50)))

    assert len(calls) >= 5
    assert max(calls) <= 1 << 20


def test_an_empty_workload_is_a_job_that_is_done(double: Task[..., Any, Any]) -> None:
    stands = double.map([]).wait(timeout=60)

    assert (stands.state, stands.total) == (JobState.DONE, 0)


def test_bad_input_in_the_first_chunk_writes_nothing(gate: Tidegate, double: Task[..., Any, Any]) -> None:
    with pytest.raises(PayloadError, match="item 5 "):
        double.map([0, 1, 2, 3, 4, object()])

    assert gate.jobs() == []


def test_bad_input_later_cancels_what_was_written(gate: Tidegate, double: Task[..., Any, Any]) -> None:
    """Half a workload that nobody will complete must not run on."""

    def items() -> Iterator[object]:
        yield from ("x" * 50_000 for _ in range(100))
        yield object()

    with pytest.raises(PayloadError, match="item 100 ") as caught:
        double.map(items(), batch_size=1)

    (stands,) = gate.jobs()
    assert stands.state is JobState.CANCELLED
    assert "PayloadError" in stands.reason
    assert stands.job_id in caught.value.__notes__[0]


def test_an_error_of_the_source_comes_through_as_it_is(double: Task[..., Any, Any]) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("the source broke")

    with pytest.raises(KeyError, match="the source broke"):
        double.map(items())


def test_the_same_id_with_the_same_items_is_the_same_job(double: Task[..., Any, Any]) -> None:
    first = double.map(range(100), id="nightly")
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    second = double.map(items(), id="nightly")

    assert first == second
    assert first.progress().total == 100
    assert read == []  # a submission that is complete is found, its items are not even read


def test_the_same_id_for_another_task_is_a_conflict(gate: Tidegate, double: Task[..., Any, Any]) -> None:
    double.map([1], id="nightly")

    @gate.task
    def other(number: int) -> int:
        return number

    with pytest.raises(SubmissionConflict, match="another task"):
        other.map([1], id="nightly")
    with pytest.raises(SubmissionConflict, match="batch_size=500"):
        double.map([1], id="nightly", batch_size=3)


def test_a_broken_submission_with_an_id_goes_on_where_it_stopped(
    gate: Tidegate, hand: Any, double: Task[..., Any, Any]
) -> None:
    def breaks() -> Iterator[int]:
        yield from range(30_000)
        raise OSError("the network broke")

    with pytest.raises(OSError, match="the network broke") as caught:
        double.map(breaks(), id="import 7", batch_size=100)

    job = gate.job("import 7")
    assert job.progress().state is JobState.OPEN
    assert 0 < job.progress().total < 30_000
    assert "to go on" in caught.value.__notes__[0]

    assert double.map(range(40_000), id="import 7") == job
    hand.settle_all(job.id)
    assert hand.seen == {number: number for number in range(40_000)}
    assert job.progress().state is JobState.DONE


def test_going_on_with_fewer_items_is_a_conflict(double: Task[..., Any, Any]) -> None:
    def breaks() -> Iterator[int]:
        yield from range(30_000)
        raise OSError("the network broke")

    with pytest.raises(OSError, match="the network broke"):
        double.map(breaks(), id="x", batch_size=100)

    with pytest.raises(SubmissionConflict, match="only 10 were given"):
        double.map(range(10), id="x")


def test_two_producers_with_one_id_write_each_item_once(ledger: RedisLedger, hand: Any, submission: Make) -> None:
    """A cron job that overlaps with itself. Both split alike, so the ledger takes each chunk from whoever is first."""
    split = {"job_id": "00000000000000000000000000", "batch_size": 10, "chunk_batches": 2, "chunk_bytes": 1 << 20}
    one, two = (submission(fixed=10, **split) for _ in range(2))
    items = list(range(1000))
    for start in range(0, 1000, 10):
        assert one.add(items[start : start + 10])
        if start % 30 == 0:
            for late in range(two.items, start, 10):
                assert two.add(items[late : late + 10])
    for late in range(two.items, 1000, 10):
        two.add(items[late : late + 10])
    one.finish()
    two.finish()
    hand.settle_all(one.spec.job_id)

    assert hand.seen == dict(enumerate(items))


@pytest.mark.parametrize(("count", "error"), [(60, JobEnded), (20, SubmissionConflict)])
def test_a_producer_that_comes_late_with_other_items_is_told(
    hand: Any, submission: Make, count: int, error: type[Exception]
) -> None:
    """Two overlapping producers with one id and different items: the second must not be told that all is well."""
    split = {"job_id": "00000000000000000000000000", "batch_size": 10, "chunk_batches": 2, "chunk_bytes": 1 << 20}
    one, two = (submission(fixed=10, **split) for _ in range(2))
    drive(one, range(40))

    with pytest.raises(error):
        drive(two, range(count))

    hand.settle_all(one.spec.job_id)
    assert hand.seen == dict(enumerate(range(40)))


_PRODUCER = """
    import sys
    from tidegate import Tidegate

    gate = Tidegate(sys.argv[1])

    @gate.task(name="double")
    def double(number):
        return 2 * number

    def items():
        for number in range(50_000):
            if number == 20_000:
                print("half", flush=True)
                if len(sys.argv) > 2:
                    sys.stdin.read()
            yield number

    double.map(items(), id="killed", batch_size=100)
"""


def test_a_producer_killed_in_the_middle_runs_again_and_completes(
    ledger_url: str, gate: Tidegate, hand: Any, tmp_path: Path
) -> None:
    script = tmp_path / "producer.py"
    script.write_text(textwrap.dedent(_PRODUCER))
    command = [sys.executable, str(script), ledger_url]
    with subprocess.Popen([*command, "stop"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as producer:
        assert producer.stdout is not None
        assert producer.stdout.readline() == b"half\n"
        os.kill(producer.pid, signal.SIGKILL)
    job = gate.job("killed")
    stands = job.progress()
    assert stands.state is JobState.OPEN
    assert 0 < stands.total <= 20_000

    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    hand.settle_all(job.id)
    assert job.progress().state is JobState.DONE
    assert hand.seen == {number: number for number in range(50_000)}


def test_items_over_the_limit_are_refused(ledger_url: str) -> None:
    gate = Tidegate(ledger_url, max_batch_bytes=1000)
    double = gate.task(lambda text: text)

    with pytest.raises(PayloadTooLarge, match="item 1 takes"):
        double.map(["small", "x" * 2000])
    assert double.map(["x" * 400] * 10).progress().total == 10  # ten do not fit together, so they are split
    with pytest.raises(PayloadTooLarge, match="smaller batch_size"):
        double.map(["x" * 400] * 10, batch_size=10)
    gate.close()


async def _numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


def test_async_iterables_are_submitted_inside_and_outside_a_loop(double: Task[..., Any, Any]) -> None:
    async def inside() -> list[int]:
        jobs = [await double.amap(_numbers(300)), await double.amap(range(200)), await double.astarmap([(1,), (2,)])]
        return [job.progress().total for job in jobs]

    assert asyncio.run(inside()) == [300, 200, 2]
    assert double.map(_numbers(50)).progress().total == 50


def test_a_blocking_map_of_an_async_iterable_inside_a_loop_says_what_to_use(double: Task[..., Any, Any]) -> None:
    async def inside() -> None:
        double.map(_numbers(3))

    with pytest.raises(ConfigurationError, match=r"await task\.amap"):
        asyncio.run(inside())


def test_the_loop_goes_on_while_a_submission_waits_for_room(ledger: RedisLedger, hand: Any, submission: Make) -> None:
    """Backpressure waits in a thread: other coroutines must not notice."""
    bounded = submission(fixed=10, max_pending_batches=1)
    job_id = bounded.spec.job_id

    async def both() -> None:
        submitting = asyncio.create_task(adrive(bounded, _numbers(100)))
        while not (bounded.written and bounded._flow.waiting):
            await asyncio.sleep(0.001)
        for _ in range(20):  # it waits for room, which nobody makes yet
            await asyncio.sleep(0.001)
            assert not submitting.done()
        while not submitting.done():
            await asyncio.to_thread(hand.settle_one, job_id)
            await asyncio.sleep(0.001)
        await submitting

    asyncio.run(asyncio.wait_for(both(), 120))
    hand.settle_all(job_id)
    assert hand.seen == dict(enumerate(range(100)))


def test_cancelling_an_async_submission_ends_it_and_cancels_the_job(ledger: RedisLedger, submission: Make) -> None:
    bounded = submission(fixed=10, max_pending_batches=1)

    async def cancelled() -> None:
        submitting = asyncio.create_task(adrive(bounded, _numbers(1000)))
        while not (bounded.written and bounded._flow.waiting):
            await asyncio.sleep(0.001)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting

    asyncio.run(cancelled())

    assert ledger.progress(bounded.spec.job_id).state is JobState.CANCELLED


def test_the_shape_of_items_travels(ledger: RedisLedger, double: Task[..., Any, Any]) -> None:
    job = double.starmap([(1,), (2,)])
    spec = job.progress().spec

    assert spec is not None
    assert spec.shape == Shape.STAR


def test_the_origin_of_a_job_is_the_line_that_mapped(double: Task[..., Any, Any]) -> None:
    jobs = [double.map([1]), asyncio.run(double.amap([1]))]

    for job in jobs:
        spec = job.progress().spec
        assert spec is not None
        assert spec.origin.file == __file__
    assert jobs[0].progress().spec.origin.function == "test_the_origin_of_a_job_is_the_line_that_mapped"  # type: ignore[union-attr]
