"""What the supervisor makes of the outcome log of a dead process."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.executor.outlog import Recorded
from tidegate.ledger.port import Lease, Token
from tidegate.model.outcome import FailureRecord, Outcome
from tidegate.model.policy import TaskPolicy
from tidegate.model.wire import Shape, decode_argument, decode_failures, decode_results, encode_items
from tidegate.worker import bits
from tidegate.worker.ended import ended_items
from tidegate.worker.held import HeldLease
from tidegate.worker.recorder import Recorder, WaitingFailure
from tidegate.worker.slots import Slot
from tidegate.worker.work import BatchWork, WorkLane

TAG = b"sixteen bytes..."


def _held(**changes: Any) -> HeldLease:
    held = HeldLease(
        tag=TAG, job_id="j", batch=3, epoch=1, nonce="n", claimer="w/0", items=10, first_index=30, task="t"
    )  # fmt: skip
    return msgspec.structs.replace(held, **changes)


def _ok(position: int, value: Any, attempts: int = 1, lost: bool = False) -> Recorded:
    return Recorded(TAG, position, Outcome.SUCCEEDED, attempts, msgspec.msgpack.encode(value), lost)


def _failed(position: int, kind: str = "ValueError", outcome: Outcome = Outcome.FAILED) -> Recorded:
    record = FailureRecord(30 + position, outcome, kind, "no", "f" * 16, 2, b"\x01")
    return Recorded(TAG, position, outcome, 2, msgspec.msgpack.encode(WaitingFailure(record, "Traceback\n  here\n")))


def _by_position(*records: Recorded) -> dict[int, Recorded]:
    return {record.position: record for record in records}


def test_results_and_failures_are_told_as_the_process_itself_would_have_told_them() -> None:
    found = ended_items(_held(), _by_position(_ok(0, None), _ok(7, {"a": 1}), _failed(2)), b"")
    assert found.positions == [0, 2, 7]
    assert found.outcomes == {Outcome.SUCCEEDED: 2, Outcome.FAILED: 1}
    assert list(decode_results(found.results)) == [(30, None), (37, {"a": 1})]
    [failure] = decode_failures(found.failures)
    assert (failure.index, failure.error_type) == (32, "ValueError")
    assert found.errors == {"ValueError": 1}
    assert found.traces == {"f" * 16: "Traceback\n  here"}
    assert found.executions == 4


def test_what_the_ledger_has_already_is_not_told_again() -> None:
    found = ended_items(_held(), _by_position(_ok(0, 1), _ok(1, 2), _failed(2)), bits.of([1, 2], 10))
    assert found.positions == [0]
    assert not found.failures
    assert not found.errors


def test_what_was_tried_under_earlier_leases_is_not_counted_again() -> None:
    found = ended_items(_held(attempts=bytes([2] * 10)), _by_position(_ok(0, 1, attempts=3)), b"")
    assert found.executions == 1


def test_items_whose_content_was_not_kept_run_again_and_are_counted() -> None:
    unreadable = Recorded(TAG, 4, Outcome.FAILED, 1, b"\xc1")
    found = ended_items(_held(), _by_position(_ok(0, 1, lost=True), unreadable, _ok(99, 1)), b"")
    assert found.positions == []
    assert found.lost == 2
    assert found.results == found.failures == b""


def test_cancelled_items_are_counted_and_leave_no_dead_letter() -> None:
    found = ended_items(_held(), _by_position(Recorded(TAG, 1, Outcome.CANCELLED, 0, b"")), b"")
    assert found.outcomes == {Outcome.CANCELLED: 1}
    assert found.failures == b""


class _Keeper:
    """Holds one batch."""

    def __init__(self, work: BatchWork) -> None:
        self._work = work

    def by_tag(self, tag: bytes) -> BatchWork | None:
        return self._work if tag == self._work.tag else None


def test_a_failure_waits_with_the_arguments_that_the_producer_sent() -> None:
    from tidegate.executor.failure import ItemFailure

    payload = encode_items([["a"], ["b"]], Shape.ONE, max_bytes=1000)
    lease = Lease(
        job_id="j", batch=0, token=Token(1, "n"), claimer="w/0", items=2, first_index=0, payload=payload, task="t"
    )  # fmt: skip
    work = BatchWork(lease, Slot(0, "w/0"), WorkLane("t", None, TaskPolicy()), TAG)  # type: ignore[arg-type]
    recorder = Recorder(_Keeper(work), 100)  # type: ignore[arg-type]
    failure = ItemFailure(1, Outcome.TIMED_OUT, "T", "late", "Traceback", "f" * 16, 1, 5)
    content = recorder.describe(TAG, failure)
    found = ended_items(_held(items=2), {1: Recorded(TAG, 1, Outcome.TIMED_OUT, 1, content)}, b"")
    [record] = decode_failures(found.failures)
    assert decode_argument(record.arguments) == ["b"]
    assert found.outcomes == {Outcome.TIMED_OUT: 1}
