"""From what the executor settled to what the ledger is told."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.errors import LedgerUnavailable
from tidegate.executor.host import ItemFailure, Settled
from tidegate.ledger.port import Lease, Settlement, Token
from tidegate.model.job import JobSpec, Origin, Progress
from tidegate.model.outcome import JobState, Outcome
from tidegate.model.policy import TaskPolicy
from tidegate.model.wire import Shape, decode_argument, decode_failures, decode_results, encode_items
from tidegate.worker import bits
from tidegate.worker.facts import JobFacts
from tidegate.worker.settle import Ending, Packer, crash_fingerprint
from tidegate.worker.slots import Slot
from tidegate.worker.work import MAX_ERROR_TYPES, OTHER_ERRORS, SUSPECTED, BatchWork, Phase, WorkLane, crash_counts

FIRST = 100


class _Specs:
    """The one question that job facts ask."""

    def __init__(self, *, keep: bool = True, away: bool = False) -> None:
        self.keep = keep
        self.away = away
        self.asked = 0

    def progress(self, job_id: str) -> Progress:
        self.asked += 1
        if self.away:
            raise LedgerUnavailable("away")
        spec = JobSpec(job_id=job_id, task="t", keep_results=self.keep, origin=Origin("app.py", 7, "main"))
        return Progress(job_id=job_id, task="t", queue="q", state=JobState.SEALED, spec=spec)


def _packer(specs: _Specs | None = None, *, item: int = 1000, block: int = 5000) -> Packer:
    return Packer(item, block, JobFacts(specs or _Specs()))  # type: ignore[arg-type]


def _work(items: int, **changes: Any) -> BatchWork:
    payload = encode_items([f"item {n}" for n in range(items)], Shape.ONE, max_bytes=1 << 20)
    lease = Lease(
        job_id="j", batch=0, token=Token(1, "n"), claimer="c", items=items, first_index=FIRST, payload=payload, task="t",
        **changes,
    )  # fmt: skip
    lane = WorkLane("t", None, TaskPolicy())  # type: ignore[arg-type]
    return BatchWork(lease, Slot(0, "c"), lane, b"t" * 16)


def _settled(
    values: dict[int, Any], failures: tuple[ItemFailure, ...] = (), *, whole: bool = True, items: int = 0
) -> Settled:
    positions = sorted(values)
    contiguous = bool(positions) and positions[-1] - positions[0] == len(positions) - 1
    count = len(values) + len(failures)
    outcomes = {Outcome.SUCCEEDED: len(values)} if values else {}
    for failure in failures:
        outcomes[failure.outcome] = outcomes.get(failure.outcome, 0) + 1
    everything = [*positions, *(failure.position for failure in failures)]
    return Settled(
        count=count,
        bits=b"" if whole else bits.of(everything, items),
        ok_first=positions[0] if contiguous else -1,
        ok_positions=None if contiguous else positions,
        ok_values=[values[position] for position in positions],
        failures=list(failures),
        returned=[],
        deferred=[],
        attempts=b"",
        outcomes=outcomes,
        executions=count,
        retries=0,
        stats={"running_count": count},
    )


def _failure(position: int, kind: str = "ValueError", outcome: Outcome = Outcome.FAILED) -> ItemFailure:
    return ItemFailure(position, outcome, kind, "no", f"{kind}: no\n  at f", "f" * 16, 2, 5, ("attempt 1: no",))


def _check(settlements: list[Settlement], work: BatchWork) -> tuple[dict[int, Any], dict[int, Any]]:
    """What any ledger demands; results and dead letters by index."""
    results: dict[int, Any] = {}
    letters: dict[int, Any] = {}
    united = b""
    for part in settlements:
        assert sum(part.outcomes.values()) == part.settled
        if part.bits:
            assert len(part.bits) == (work.lease.items + 7) // 8
            assert bits.count(part.bits) == part.settled
            assert not int.from_bytes(united, "little") & int.from_bytes(part.bits, "little")
            united = bits.union(united, part.bits)
        else:
            assert part.settled in (0, work.lease.items)
        if part.results:
            results.update(decode_results(part.results))
        if part.failures:
            letters.update({record.index: record for record in decode_failures(part.failures)})
    assert all(not part.hand_back and not part.stats for part in settlements[:-1])
    return results, letters


def test_a_batch_that_succeeded_is_one_block_and_one_settlement() -> None:
    work = _work(10, ready_ms=3)
    [done] = _packer().pack(work, _settled({n: n * n for n in range(10)}))
    results, letters = _check([done], work)
    assert results == {FIRST + n: n * n for n in range(10)}
    assert letters == {}
    assert (done.settled, done.bits, done.outcomes) == (10, b"", {Outcome.SUCCEEDED: 10})
    assert done.stats["ready_count"] == 10
    assert done.stats["ready_sum_ns"] == 10 * 3_000_000


def test_the_time_in_the_ledger_is_counted_once_for_a_lease_and_for_the_items_that_were_left() -> None:
    work = _work(10, ready_ms=3, done_bits=bits.of([0, 1], 10))
    packer = _packer()
    [first] = packer.pack(work, _settled({2: "a"}, whole=False, items=10))
    [second] = packer.pack(work, _settled({3: "a"}, whole=False, items=10))
    assert first.stats["ready_count"] == 8
    assert "ready_count" not in second.stats


def test_what_an_earlier_holder_settled_is_not_settled_again() -> None:
    work = _work(10, done_bits=bits.of([0, 9], 10))
    [done] = _packer().pack(work, _settled({n: n for n in range(1, 9)}))
    assert done.bits == bits.of(range(1, 9), 10)


def test_failures_keep_what_the_producer_sent_and_the_line_that_enqueued_it() -> None:
    work = _work(4)
    packer = _packer()
    [done] = packer.pack(work, _settled({0: 0, 2: 2}, (_failure(1), _failure(3))))
    results, letters = _check([done], work)
    assert sorted(results) == [FIRST, FIRST + 2]
    assert [decode_argument(letters[FIRST + n].arguments) for n in (1, 3)] == ["item 1", "item 3"]
    assert letters[FIRST + 1].history == ("attempt 1: no",)
    assert done.errors == {"ValueError": 2}
    assert done.traces["f" * 16].endswith("# enqueued at app.py:7 in main")
    packer.committed(work, done)
    [later] = packer.pack(_work(4), _settled({}, (_failure(0),), whole=False, items=4))
    assert later.traces == {}, "a trace is sent once"


def test_cancelled_items_are_counted_and_leave_no_dead_letter() -> None:
    work = _work(3)
    [done] = _packer().pack(work, _settled({0: 0}, (_failure(1, "Cancelled", Outcome.CANCELLED), _failure(2))))
    _, letters = _check([done], work)
    assert list(letters) == [FIRST + 2]
    assert done.outcomes == {Outcome.SUCCEEDED: 1, Outcome.CANCELLED: 1, Outcome.FAILED: 1}
    assert done.errors == {"ValueError": 1}


@pytest.mark.parametrize("bad", [object(), "x" * 2000, {1: object()}, 2**70])
def test_a_result_that_cannot_be_stored_fails_its_item_alone(bad: Any) -> None:
    work = _work(5)
    parts = _packer().pack(work, _settled({0: "a", 1: bad, 2: "c", 4: "e"}, (_failure(3),)))
    results, letters = _check(parts, work)
    assert results == {FIRST: "a", FIRST + 2: "c", FIRST + 4: "e"}
    assert {index: letter.error_type for index, letter in letters.items()} == {
        FIRST + 1: "PayloadError",
        FIRST + 3: "ValueError",
    }
    assert sum(part.settled for part in parts) == 5


def test_results_too_large_for_one_commit_go_in_several() -> None:
    work = _work(20)
    ending = Ending(hand_back=True, delay_ms=7, attempts=bytes(20))
    values = dict.fromkeys(range(18), "x" * 900)
    parts = _packer().pack(work, _settled(values, (_failure(18),), whole=False, items=20), ending)
    results, letters = _check(parts, work)
    assert len(parts) > 2
    assert all(len(part.results) < 6000 for part in parts)
    assert sorted(results) == [FIRST + n for n in range(18)]
    assert list(letters) == [FIRST + 18]
    assert sum(part.settled for part in parts) == 19
    assert (parts[-1].hand_back, parts[-1].delay_ms, parts[-1].attempts) == (True, 7, bytes(20))
    assert sum(part.executions for part in parts) == 19


def test_a_job_that_keeps_no_results_is_not_failed_for_them() -> None:
    specs = _Specs(keep=False)
    work = _work(2)
    [done] = _packer(specs).pack(work, _settled({0: object(), 1: "x" * 9000}))
    assert done.outcomes == {Outcome.SUCCEEDED: 2}
    assert done.results == b""
    assert specs.asked == 1


def test_small_results_need_no_question_to_the_ledger() -> None:
    specs = _Specs(away=True)
    work = _work(3)
    [done] = _packer(specs).pack(work, _settled({0: 1, 1: 2, 2: 3}))
    assert done.settled == 3
    assert specs.asked == 0


def test_items_that_crashed_too_often_become_dead_letters_without_being_run() -> None:
    work = _work(6, crashes=bytes([0, 3, 0, 2, 0, 3]), done_bits=bits.of([5], 6), attempts=bytes([0, 1, 0, 0, 0, 0]))
    work.set_aside_crashed(3)
    assert work.crashed_out == [1], "5 was settled before, 3 has a chance left"
    assert work.phases() == [Phase(bits.of([0, 1, 2, 4, 5], 6), alone=True), Phase(bits.of([1, 3, 5], 6))]
    work.skip = work.phases()[1].skip
    packer = _packer()
    [done] = packer.pack(work, _settled({0: 0, 2: 2, 4: 4}))
    _, letters = _check([done], work)
    assert done.bits == bits.of([0, 1, 2, 4], 6)
    assert letters[FIRST + 1].outcome is Outcome.CRASHED
    assert letters[FIRST + 1].attempts == 4
    assert letters[FIRST + 1].fingerprint == crash_fingerprint("t")
    assert decode_argument(letters[FIRST + 1].arguments) == "item 1"
    assert work.lane.taken() == ({"ProcessCrashed": 1}, 1)
    [later] = packer.pack(work, _settled({3: 3}, whole=False, items=6))
    assert (later.settled, later.bits) == (1, bits.of([3], 6)), "it is given up once"


def test_a_batch_of_which_only_crashed_items_are_left_still_has_a_run_to_settle_it() -> None:
    work = _work(3, crashes=bytes([3, 0, 0]), done_bits=bits.of([1, 2], 3))
    work.set_aside_crashed(3)
    assert work.phases() == [Phase(bits.of([0, 1, 2], 3))]


def test_a_suspect_runs_alone_and_is_charged_with_nothing() -> None:
    work = _work(4, crashes=bytes([0, SUSPECTED, SUSPECTED | 2, SUSPECTED | 3]))
    work.set_aside_crashed(3)
    assert work.crashed_out == [3]
    everything = bits.of(range(4), 4)
    assert work.phases() == [
        Phase(bits.of([0, 2, 3], 4), alone=True),
        Phase(bits.of([0, 1, 3], 4), alone=True),
        Phase(bits.of([1, 2, 3], 4)),
    ]
    assert all(phase.skip != everything for phase in work.phases())
    assert crash_counts(work.lease.crashes) == bytes([0, 0, 2, 3])


def test_error_types_of_a_process_are_bounded() -> None:
    lane = WorkLane("t", None, TaskPolicy())  # type: ignore[arg-type]
    from collections import Counter

    for number in range(MAX_ERROR_TYPES + 10):
        lane.note(Counter({f"E{number}": 1}), 0)
    errors, _ = lane.taken()
    assert len(errors) == MAX_ERROR_TYPES + 1
    assert errors[OTHER_ERRORS] == 10
