"""Host with sync functions: the contract that the worker's batch runner builds on."""

from __future__ import annotations

import threading
import time

import pytest

from tidegate.errors import ExecutorClosed, ExecutorFull, RetryAfter
from tidegate.executor.current import current_item
from tidegate.executor.host import Host
from tidegate.model.outcome import Outcome
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry

PATIENCE_S = 60.0


def identity(value: object) -> object:
    return value


def test_a_whole_run_settles_in_one_take_with_no_bitmap(host: Host) -> None:
    run = host.lane("t", identity, TaskPolicy()).start(list(range(1000)))

    assert run.wait(PATIENCE_S)
    settled = run.take()

    assert (settled.count, settled.bits, settled.ok_first, settled.ok_positions) == (1000, b"", 0, None)
    assert settled.ok_values == list(range(1000))
    assert settled.outcomes == {Outcome.SUCCEEDED: 1000}
    assert (settled.executions, settled.retries, run.remaining, run.done) == (1000, 0, 0, True)


def test_a_second_take_is_empty(host: Host) -> None:
    run = host.lane("t", identity, TaskPolicy()).start([1])
    run.wait(PATIENCE_S)
    run.take()

    assert run.take().count == 0


def test_an_empty_run_is_done_at_once(host: Host) -> None:
    run = host.lane("t", identity, TaskPolicy()).start([])

    assert run.wait(PATIENCE_S)
    assert run.take().count == 0


@pytest.mark.parametrize(
    ("shape", "items", "expected"),
    [(0, [(1, 2)], [((1, 2),)]), (1, [(1, 2)], [(1, 2)]), (2, [((1,), {"b": 2})], [(1, 2)])],
)
def test_an_item_is_applied_by_its_shape(host: Host, shape: int, items: list[object], expected: list[object]) -> None:
    def echo(*args: object, b: object = None) -> object:
        return (*args, b) if b is not None else args

    run = host.lane("t", echo, TaskPolicy()).start(items, shape=shape)
    run.wait(PATIENCE_S)

    assert run.take().ok_values == expected


def test_items_of_the_wrong_shape_fail_alone(host: Host) -> None:
    run = host.lane("t", lambda *a, **k: 1, TaskPolicy()).start([((), {}), 5, ((), {}, 1)], shape=2)
    run.wait(PATIENCE_S)
    settled = run.take()

    assert settled.ok_values == [1]
    assert [failure.error_type for failure in settled.failures] == ["TypeError", "TypeError"]


def test_skipped_positions_do_not_run_and_are_not_counted(host: Host) -> None:
    seen: list[int] = []
    lane = host.lane("t", seen.append, TaskPolicy(concurrency=1))
    host.pause()
    run = lane.start(list(range(10)), skip=bytes([0b00000101, 0b10]))
    assert run.remaining == 7
    host.resume()
    run.wait(PATIENCE_S)
    settled = run.take()

    assert seen == [1, 3, 4, 5, 6, 7, 8]
    assert settled.count == 7
    assert settled.bits == bytes([0b11111010, 0b01])
    assert settled.ok_positions == seen


def test_failures_carry_type_message_trace_and_history(host: Host) -> None:
    def fail(value: int) -> None:
        raise ValueError(f"no {value}")

    policy = TaskPolicy(retry=Retry(attempts=3, base=0.001))
    run = host.lane("t", fail, policy).start([7], origin="/app/main.py:12 in enqueue")
    run.wait(PATIENCE_S)
    settled = run.take()
    (failure,) = settled.failures

    assert (failure.position, failure.outcome, failure.error_type, failure.message) == (
        0,
        Outcome.FAILED,
        "ValueError",
        "no 7",
    )
    assert failure.attempts == 3
    assert len(failure.history) == 2
    assert failure.history[0].startswith("attempt 1: ValueError: no 7")
    assert "at test_failures_carry" in failure.traceback
    assert "raise ValueError" in failure.traceback
    assert failure.traceback.endswith("# enqueued at /app/main.py:12 in enqueue")
    assert (settled.executions, settled.retries) == (3, 2)
    assert len(failure.fingerprint) == 16


def test_the_same_cause_has_the_same_fingerprint_and_another_has_not(host: Host) -> None:
    def fail(value: int) -> None:
        if value < 2:
            raise ValueError(f"user {value} not found")
        raise KeyError(value)

    run = host.lane("t", fail, TaskPolicy()).start([0, 1, 2])
    run.wait(PATIENCE_S)
    first, second, third = (failure.fingerprint for failure in run.take().failures)

    assert first == second != third


def test_hostile_exceptions_fail_their_item_and_nothing_else(host: Host) -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text for you")

        def __getattr__(self, name: str) -> object:
            raise SystemExit(name)

    class Huge(Exception):
        def __str__(self) -> str:
            return "x" * 10_000_000

    errors: list[BaseException] = [
        Hostile(),
        Huge(),
        SystemExit(3),
        KeyboardInterrupt(),
        MemoryError(),
        GeneratorExit(),
    ]

    def fail(position: int) -> None:
        raise errors[position]

    run = host.lane("t", fail, TaskPolicy()).start(list(range(len(errors))))
    assert run.wait(PATIENCE_S)
    failures = sorted(run.take().failures, key=lambda failure: failure.position)

    assert len(failures) == len(errors)
    assert all(failure.outcome is Outcome.FAILED for failure in failures)
    assert failures[0].message == "<RuntimeError in __str__>"
    assert len(failures[1].message) < 3000
    assert max(len(failure.traceback) for failure in failures) <= 8000
    assert [failure.error_type for failure in failures[2:]] == [
        "SystemExit",
        "KeyboardInterrupt",
        "MemoryError",
        "GeneratorExit",
    ]


def test_classes_not_to_be_retried_are_not(host: Host) -> None:
    calls: list[int] = []

    def fail(value: int) -> None:
        calls.append(value)
        raise (KeyError if value else ValueError)(value)

    policy = TaskPolicy(retry=Retry(attempts=3, base=0, not_on=(KeyError,)))
    run = host.lane("t", fail, policy).start([0, 1])
    run.wait(PATIENCE_S)

    assert sorted(calls) == [0, 0, 0, 1]


def test_a_predicate_that_raises_means_no_retry(host: Host) -> None:
    def broken(_error: BaseException) -> bool:
        raise ZeroDivisionError

    def fail(_value: int) -> None:
        raise ValueError

    run = host.lane("t", fail, TaskPolicy(retry=Retry(attempts=5, base=0, when=broken))).start([0])
    assert run.wait(PATIENCE_S)

    assert run.take().executions == 1


def test_attempts_made_before_count(host: Host) -> None:
    def fail(_value: int) -> None:
        raise ValueError

    run = host.lane("t", fail, TaskPolicy(retry=Retry(attempts=3, base=0))).start([0, 1], attempts=bytes([2, 0]))
    run.wait(PATIENCE_S)
    settled = run.take()

    assert settled.executions == 1 + 3
    assert sorted((failure.position, failure.attempts) for failure in settled.failures) == [(0, 3), (1, 3)]


def test_an_item_that_crashed_too_often_is_not_run_again(host: Host) -> None:
    seen: list[int] = []
    run = host.lane("t", seen.append, TaskPolicy(max_crashes=2)).start([0, 1], crashes=bytes([2, 1]))
    run.wait(PATIENCE_S)
    settled = run.take()

    assert seen == [1]
    assert [failure.outcome for failure in settled.failures] == [Outcome.CRASHED]
    assert settled.outcomes == {Outcome.SUCCEEDED: 1, Outcome.CRASHED: 1}


def test_retry_after_is_waited_for_and_reported_to_the_limits(host: Host) -> None:
    told: list[tuple[str, float]] = []
    limit = host.limit("api", concurrency=4)
    limit.on_retry_after = lambda name, delay_s: told.append((name, delay_s))
    starts: list[float] = []

    def fetch(_value: int) -> str:
        starts.append(time.monotonic())
        if len(starts) == 1:
            raise RetryAfter(0.2)
        return "ok"

    run = host.lane("t", fetch, TaskPolicy(retry=Retry(attempts=2, base=0)), limits=[limit]).start([0])
    assert run.wait(PATIENCE_S)

    assert run.take().ok_values == ["ok"]
    assert starts[1] - starts[0] >= 0.19
    assert told == [("api", 0.2)]


def test_a_wait_longer_than_max_wait_comes_back_deferred(host: Host) -> None:
    def fail(_value: int) -> None:
        raise RetryAfter(600)

    run = host.lane("t", fail, TaskPolicy(retry=Retry(attempts=2), max_wait=1.0)).start([0, 1])
    assert run.wait(PATIENCE_S)
    settled = run.take()

    assert [position for position, _due_ms in settled.deferred] == [0, 1]
    assert all(500_000 < due_ms <= 600_000 for _position, due_ms in settled.deferred)
    assert settled.attempts == bytes([1, 1])
    assert (settled.count, settled.executions) == (0, 2)


def test_a_drained_run_returns_what_had_not_started(host: Host) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def work(value: int) -> int:
        entered.set()
        go_on.wait(PATIENCE_S)
        return value

    run = host.lane("t", work, TaskPolicy(concurrency=1)).start([0, 1, 2])
    assert entered.wait(PATIENCE_S)
    run.drain()
    go_on.set()
    assert run.wait(PATIENCE_S)
    settled = run.take()

    assert settled.ok_values == [0]
    assert settled.returned == [1, 2]
    assert settled.attempts == bytes([0, 0, 0])


def test_a_cancelled_run_ends_waiting_items_as_cancelled(host: Host) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def work(value: int) -> int:
        entered.set()
        go_on.wait(PATIENCE_S)
        return value

    run = host.lane("t", work, TaskPolicy(concurrency=1)).start([0, 1, 2])
    assert entered.wait(PATIENCE_S)
    run.cancel()
    go_on.set()
    assert run.wait(PATIENCE_S)
    settled = run.take()

    assert settled.outcomes == {Outcome.SUCCEEDED: 1, Outcome.CANCELLED: 2}


def test_partial_takes_add_up_to_the_whole(host: Host) -> None:
    gates = [threading.Event() for _ in range(4)]

    def work(value: int) -> int:
        gates[value].wait(PATIENCE_S)
        return value * 10

    run = host.lane("t", work, TaskPolicy(concurrency=4)).start(list(range(4)))
    positions: list[int] = []
    values: list[int] = []
    for value in (2, 0, 3, 1):
        before = run.remaining
        gates[value].set()
        while run.remaining == before:
            run.wait(0.01)
        settled = run.take()
        positions.append(settled.ok_first)
        values += settled.ok_values
        assert settled.bits == bytes([1 << value])

    assert positions == [2, 0, 3, 1]
    assert values == [20, 0, 30, 10]


def test_items_run_at_once_up_to_the_concurrency_and_no_more(host: Host) -> None:
    lock, running, peak = threading.Lock(), 0, 0
    all_there = threading.Event()

    def work(_value: int) -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
            if running == 5:
                all_there.set()
        assert all_there.wait(PATIENCE_S)
        with lock:
            running -= 1

    run = host.lane("t", work, TaskPolicy(concurrency=5)).start(list(range(20)))
    assert run.wait(PATIENCE_S)

    assert run.take().outcomes == {Outcome.SUCCEEDED: 20}
    assert peak == 5


@pytest.mark.parametrize(("concurrency", "threads", "at_once"), [(2000, None, 5), (50, 2, 2)])
def test_threads_follow_the_concurrency_up_to_what_was_said(
    concurrency: int, threads: int | None, at_once: int
) -> None:
    """However large the concurrency is, and never more than ``threads``."""
    host = Host(name="threads", threads=threads)
    together = threading.Barrier(at_once)
    seen: set[int] = set()

    def meet(_: int) -> None:
        seen.add(threading.get_ident())
        together.wait(PATIENCE_S)

    run = host.lane("meet", meet, TaskPolicy(concurrency=concurrency)).start(range(10))
    assert run.wait(PATIENCE_S)
    assert run.take().failures == []
    assert len(seen) == at_once if threads is not None else len(seen) >= at_once
    host.close(timeout_s=PATIENCE_S)


def test_a_lane_that_waits_for_its_limit_does_not_hold_up_another(host: Host) -> None:
    shut = host.limit("shut", concurrency=1, supplied=True)
    held = host.lane("held", identity, TaskPolicy(), limits=[shut]).start([1])
    free = host.lane("free", identity, TaskPolicy()).start([2])

    assert free.wait(PATIENCE_S)
    assert not held.done
    assert shut.demand() == 1
    shut.set_capacity(1)
    assert held.wait(PATIENCE_S)
    assert (shut.used(), shut.in_use()) == (1, 0)


def test_keyed_limits_keep_waiting_items_apart(host: Host) -> None:
    limit = host.limit("host", concurrency=1, keyed=True)
    blocked, both = threading.Event(), threading.Barrier(2, timeout=PATIENCE_S)

    def visit(url: tuple[str, int]) -> str:
        if url[1] == 0:
            both.wait()  # passes only when both hosts are visited at once
        return url[0]

    urls = [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    run = host.lane("t", visit, TaskPolicy(concurrency=8), limits=[limit], keys=[lambda url: url[0]]).start(urls)
    assert run.wait(PATIENCE_S)

    assert run.take().ok_values == ["a", "a", "a", "b"]
    assert not blocked.is_set()


def test_an_item_whose_key_cannot_be_told_fails_alone(host: Host) -> None:
    limit = host.limit("host", concurrency=1, keyed=True)
    run = host.lane("t", identity, TaskPolicy(), limits=[limit], keys=[lambda item: item["host"]]).start(
        [{"host": 1}, {}]
    )
    assert run.wait(PATIENCE_S)
    settled = run.take()

    assert settled.ok_values == [{"host": 1}]
    assert [failure.error_type for failure in settled.failures] == ["KeyError"]


def test_a_rate_spreads_starts_over_time(host: Host) -> None:
    lane = host.lane("t", identity, TaskPolicy(rate=100, burst=1))
    submitted = time.monotonic()
    assert lane.start(list(range(6))).wait(PATIENCE_S)

    assert time.monotonic() - submitted >= 0.05


def test_a_full_lane_refuses_and_takes_nothing() -> None:
    with Host(max_items=3) as host:
        shut = host.limit("shut", concurrency=1, supplied=True)
        lane = host.lane("t", identity, TaskPolicy(), limits=[shut])
        lane.start([1, 2])
        with pytest.raises(ExecutorFull):
            lane.start([3, 4])
        run = lane.start([3])

        assert run.remaining == 1


def test_current_item_names_job_index_and_attempt(host: Host) -> None:
    def work(value: int) -> tuple[object, ...]:
        item = current_item()
        assert item is not None
        if item.attempt == 1 and value == 1:
            raise ValueError
        return (item.job_id, item.index, item.attempt, item.idempotency_key)

    lane = host.lane("t", work, TaskPolicy(retry=Retry(attempts=2, base=0)))
    run = lane.start([0, 1], job_id="j", first_index=100)
    run.wait(PATIENCE_S)

    assert run.take().ok_values == [("j", 100, 1, "j:100"), ("j", 101, 2, "j:101")]
    assert current_item() is None


def test_paused_lanes_start_nothing_until_resumed(host: Host) -> None:
    lane = host.lane("t", identity, TaskPolicy())
    host.pause()
    run = lane.start([1])
    assert not run.wait(0.05)
    host.resume()

    assert run.wait(PATIENCE_S)


def test_snapshots_are_deltas(host: Host) -> None:
    lane = host.lane("t", identity, TaskPolicy(concurrency=3))
    lane.start(list(range(10))).wait(PATIENCE_S)
    (first,) = host.snapshot()
    lane.start(list(range(5))).wait(PATIENCE_S)
    (second,) = host.snapshot()

    assert (first.task, first.succeeded, first.started, first.concurrency) == ("t", 10, 10, 3)
    assert (second.succeeded, second.stats["running_count"]) == (5, 5)
    assert sum(count for key, count in second.stats.items() if key.startswith("running:")) == 5


def test_a_closed_host_says_so() -> None:
    host = Host()
    lane = host.lane("t", identity, TaskPolicy())
    assert host.close()
    with pytest.raises(ExecutorClosed):
        lane.start([1])
    assert host.close()


def test_closing_cancels_what_waits() -> None:
    host = Host()
    shut = host.limit("shut", concurrency=1, supplied=True)
    run = host.lane("t", identity, TaskPolicy(), limits=[shut]).start([1, 2])
    assert host.close()

    assert run.take().outcomes == {Outcome.CANCELLED: 2}


def test_failures_before_a_blocking_item_keep_their_error(host: Host) -> None:
    """Another thread finishes the items before one that blocks; what they raised is not lost on the way."""

    def work(value: int) -> None:
        if value % 40 < 39:
            raise ValueError(value)
        time.sleep(0.002)

    lane = host.lane("t", work, TaskPolicy(concurrency=4, retry=Retry(attempts=2, base=0)))
    for _ in range(10):
        run = lane.start(list(range(200)))
        assert run.wait(PATIENCE_S)
        assert {failure.error_type for failure in run.take().failures} == {"ValueError"}
