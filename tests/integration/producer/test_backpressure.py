"""The gate closes by itself: a producer stops at the high-water mark, costs nothing while it waits, and goes on."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from tidegate.app import Tidegate
from tidegate.embedded import EmbeddedServer
from tidegate.errors import LedgerFull
from tidegate.ledger.redis import RedisLedger
from tidegate.model.outcome import JobState
from tidegate.producer.drive import drive
from tidegate.producer.submission import Submission

Make = Callable[..., Submission]
HandOn = Callable[[RedisLedger], Any]


def _in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, caught


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # the other side is a thread that offers no event


def _waits(ledger: RedisLedger, submission: Submission, count: int) -> Callable[[], bool]:
    def holds() -> bool:
        try:
            return ledger.progress(submission.spec.job_id).batches == count
        except Exception:
            return False

    return holds


def test_the_source_is_not_read_beyond_the_mark(ledger: RedisLedger, hand: Any, submission: Make) -> None:
    """Ten thousand items wait at their source, not in memory and not in Redis."""
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1, 10_001):
            taken = number
            yield number

    bounded = submission(fixed=10, max_pending_batches=8, chunk_batches=2, batch_size=10, chunk_bytes=1 << 20)
    job_id = bounded.spec.job_id
    thread, caught = _in_thread(lambda: drive(bounded, items()))
    _wait_until(_waits(ledger, bounded, 8))
    stands = ledger.progress(job_id)

    assert stands.total == 80
    assert taken <= 80 + 2 * 10  # one chunk is in the producer's hand

    while thread.is_alive():
        hand.settle_one(job_id)
    hand.settle_all(job_id)
    assert caught == []
    assert hand.seen == dict(enumerate(range(1, 10_001)))
    assert ledger.progress(job_id).state is JobState.DONE


def test_the_mark_in_bytes_stops_the_producer_too(ledger: RedisLedger, hand: Any, submission: Make) -> None:
    bounded = submission(fixed=10, max_pending_bytes=50_000)
    job_id = bounded.spec.job_id
    most = 0
    thread, caught = _in_thread(lambda: drive(bounded, ("x" * 1000 for _ in range(1000))))
    _wait_until(lambda: bounded.written and bounded._flow.waiting)  # it has come to the mark
    while thread.is_alive():
        most = max(most, ledger.progress(job_id).pending_bytes)
        hand.settle_one(job_id)
    hand.settle_all(job_id)

    assert caught == []
    assert 30_000 < most <= 50_000
    assert len(hand.seen) == 1000


def test_waiting_costs_no_cpu(ledger: RedisLedger, hand: Any, submission: Make) -> None:
    """A second at the mark costs a few questions to the ledger: a share of a core that nobody notices."""
    bounded = submission(fixed=10, max_pending_batches=1)
    thread, _ = _in_thread(lambda: drive(bounded, range(1000)))
    _wait_until(_waits(ledger, bounded, 1))
    asked = ledger.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    cpu, began = psutil.Process().cpu_times(), time.monotonic()
    thread.join(1.0)  # the length of the measurement; longer where the machine is busy
    used = psutil.Process().cpu_times()
    calls = ledger.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0) - asked
    took_s = time.monotonic() - began

    assert thread.is_alive()
    assert used.user + used.system - cpu.user - cpu.system < 0.3 * took_s
    assert calls < 60 * took_s
    bounded.stop()
    thread.join()


def test_out_of_patience_is_a_typed_error_and_the_job_is_cancelled(ledger: RedisLedger, submission: Make) -> None:
    bounded = submission(fixed=1, max_pending_batches=1, patience_s=0.05)

    with pytest.raises(LedgerFull, match="high-water mark: add workers") as caught:
        drive(bounded, range(10))

    assert "was cancelled" in caught.value.__notes__[0]
    stands = ledger.progress(bounded.spec.job_id)
    assert stands.state is JobState.CANCELLED
    assert "LedgerFull" in stands.reason


def test_cancelling_the_job_ends_a_waiting_producer(ledger: RedisLedger, submission: Make) -> None:
    """An operator's decision is no error of the producer's: map returns the job, which is cancelled."""
    bounded = submission(fixed=1, max_pending_batches=1)
    thread, caught = _in_thread(lambda: drive(bounded, range(1000)))
    _wait_until(_waits(ledger, bounded, 1))

    ledger.cancel(bounded.spec.job_id, "enough")
    thread.join(60)

    assert not thread.is_alive()
    assert caught == []
    assert ledger.progress(bounded.spec.job_id).state is JobState.CANCELLED


def test_one_batch_larger_than_the_mark_passes_alone(ledger: RedisLedger, hand: Any, submission: Make) -> None:
    """A mark below one batch must slow the producer down, not stop it for ever."""
    bounded = submission(fixed=10, max_pending_bytes=100)
    thread, caught = _in_thread(lambda: drive(bounded, ("x" * 100 for _ in range(30))))
    while thread.is_alive():
        if bounded.written:
            hand.settle_one(bounded.spec.job_id)
    hand.settle_all(bounded.spec.job_id)

    assert caught == []
    assert hand.batches == [10, 10, 10]


def test_a_server_out_of_memory_refuses_a_new_job_before_anything_is_written(own_server: EmbeddedServer) -> None:
    admin = own_server.client()
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] // 2)
    gate = Tidegate(own_server.url)
    task = gate.task(lambda text: text)

    with pytest.raises(LedgerFull, match="out of memory"):
        task.map("x" * 100_000 for _ in range(100))

    admin.config_set("maxmemory", 0)
    assert gate.jobs() == []
    assert task.map(["small"]).progress().total == 1
    gate.close()
    admin.close()


def test_a_server_that_fills_up_is_waited_for_while_workers_drain_it(
    own_server: EmbeddedServer, hand_on: HandOn
) -> None:
    """The memory that is missing is taken by this job's own batches: they go, and the producer goes on."""
    gate = Tidegate(own_server.url)
    task = gate.task(lambda text: text)
    ledger = RedisLedger.from_url(own_server.url)
    with own_server.client() as admin:
        admin.config_set("maxmemory", admin.info("memory")["used_memory"] + (4 << 20))
    items = ("x" * 100_000 for _ in range(200))
    thread, caught = _in_thread(lambda: task.map(items, id="full", batch_size=1, keep_results=False))
    hand = hand_on(ledger)
    job = gate.job("full")
    _wait_until(lambda: bool(gate.jobs()))
    while thread.is_alive():
        hand.settle_one(job.id)
    hand.settle_all(job.id)

    assert caught == []
    assert len(hand.seen) == 200
    assert job.progress().state is JobState.DONE
    ledger.close()
    gate.close()


_FLAT = """
    import sys, psutil
    from tidegate import Tidegate

    gate = Tidegate(sys.argv[1], max_pending_bytes=2 << 20)
    task = gate.task(name="f")(print)
    process = psutil.Process()
    seen = []

    def items():
        for number in range(1_000_000):
            if number % 100_000 == 0:
                seen.append(process.memory_info().rss)
            yield number

    task.map(items(), id="flat", batch_size=1000, keep_results=False)
    print(max(seen[3:]) - seen[2])
"""


@pytest.mark.slow
def test_memory_of_producer_and_server_does_not_follow_the_workload(
    own_server: EmbeddedServer, hand_on: HandOn
) -> None:
    """A million items: the producer holds a chunk, Redis no more than the mark."""
    ledger = RedisLedger.from_url(own_server.url)
    hand = hand_on(ledger)
    hand.remember = False
    job = Tidegate(own_server.url).job("flat")
    command = [sys.executable, "-c", textwrap.dedent(_FLAT), own_server.url]
    most = 0
    before = ledger.client.info("memory")["used_memory_dataset"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as producer:
        while producer.poll() is None:
            for _ in range(50):
                hand.settle_one(job.id)
            most = max(most, ledger.client.info("memory")["used_memory_dataset"] - before)
        assert producer.stdout is not None
        growth = int(producer.stdout.read())
    hand.settle_all(job.id)

    assert job.progress().total == 1_000_000
    assert job.progress().state is JobState.DONE
    assert growth < 16 << 20
    assert most < 6 << 20  # the mark of 2 MB, its overhead, and the buffers of a few connections
    ledger.close()
