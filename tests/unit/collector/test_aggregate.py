"""The aggregate: every record counts exactly once, dead workers leave, and nothing grows without bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.collector import aggregate as module
from tidegate.collector.aggregate import OTHER, SILENT_MS, Aggregate
from tidegate.collector.state import decode_state, encode_state
from tidegate.telemetry.record import LaneDelta, TelemetryRecord

T0_MS = 1_700_000_000_000


def add(aggregate: Aggregate, *entries: Any) -> None:
    aggregate.add(entries, entries[-1][0] if entries else aggregate.position)


def succeeded(aggregate: Aggregate) -> int:
    return sum(totals.counts.get("succeeded", 0) for totals in aggregate.tasks.values())


def restarted(aggregate: Aggregate) -> Aggregate:
    state = decode_state(encode_state(aggregate.state()))
    assert state is not None
    again = Aggregate()
    again.restore(state)
    return again


def test_totals_are_the_sum_of_the_records(make_entry: Any) -> None:
    aggregate = Aggregate()

    add(aggregate, make_entry(1), make_entry(1, "v"), make_entry(2))

    assert succeeded(aggregate) == 30
    assert aggregate.tasks["t"].stats["running_count"] == 30
    assert aggregate.sums["slot_ns"] == 3 * 2 * 10**9
    assert aggregate.now() == {"memory_bytes": 200, "running": 6, "concurrency": 16, "slots": 4, "workers": 2}


def test_a_record_that_comes_again_is_not_added(make_entry: Any) -> None:
    aggregate = Aggregate()

    add(aggregate, make_entry(1), make_entry(2), make_entry(2), make_entry(1))

    assert succeeded(aggregate) == 20
    assert aggregate.sums["duplicates"] == 2


def test_a_late_record_is_added_once_and_says_nothing_about_now(make_entry: Any) -> None:
    aggregate = Aggregate()

    add(aggregate, make_entry(1), make_entry(3, memory_bytes=900), make_entry(2, memory_bytes=1), make_entry(2))

    assert succeeded(aggregate) == 30
    assert aggregate.now()["memory_bytes"] == 900


def test_a_gap_is_counted_as_missing_when_its_worker_is_forgotten(make_entry: Any) -> None:
    aggregate = Aggregate()
    add(aggregate, make_entry(1), make_entry(4))

    aggregate.expire(T0_MS + 4000 + module.REMEMBER_MS + 1)

    assert aggregate.sums["missing"] == 2


def test_a_gap_too_long_to_remember_is_counted_at_once(make_entry: Any) -> None:
    aggregate = Aggregate()

    add(aggregate, make_entry(1), make_entry(1002))

    assert aggregate.sums["missing"] == 1000 - module.MAX_HOLES


def test_a_worker_that_starts_again_is_another_worker(make_entry: Any) -> None:
    aggregate = Aggregate()

    add(aggregate, make_entry(1, "host-1-aaa"), make_entry(1, "host-1-bbb"))

    assert succeeded(aggregate) == 20


operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("abc"), st.integers(1, 8)),
        st.tuples(st.just("read"), st.integers(1, 5)),
        st.tuples(st.just("save")),
        st.tuples(st.just("crash")),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(operations)
def test_no_mix_of_duplicates_saves_and_crashes_changes_the_totals(steps: list[tuple[Any, ...]]) -> None:
    """A model: what counts is the set of (worker, sequence) in the stream; the collector reads, saves and dies at will."""
    stream: list[tuple[str, TelemetryRecord]] = []
    aggregate, saved = Aggregate(), encode_state(Aggregate().state())

    def read(count: int) -> None:
        after = [entry for entry in stream if int(entry[0][:-2]) > int(aggregate.position[:-2])][:count]
        aggregate.add(after, after[-1][0] if after else aggregate.position)

    for step in steps:
        match step:
            case ("write", worker, sequence):
                lanes = (LaneDelta(task="t", succeeded=1 << sequence),)
                stream.append(
                    (f"{T0_MS + len(stream)}-0", TelemetryRecord(worker=worker, sequence=sequence, lanes=lanes))
                )
            case ("read", count):
                read(count)
            case ("save",):
                saved = encode_state(aggregate.state())
            case _:
                state = decode_state(saved)
                assert state is not None
                aggregate.restore(state)
    read(len(stream) + 1)

    first = {record.worker: record.sequence for _, record in reversed(stream)}
    # What lies before the first record that was ever seen of a worker was never promised to it.
    counted = {(r.worker, r.sequence) for _, r in stream if r.sequence >= first[r.worker]}
    assert succeeded(aggregate) == sum(1 << sequence for _, sequence in counted)


def test_a_restart_keeps_totals_numbers_and_history(make_entry: Any) -> None:
    aggregate = Aggregate()
    add(aggregate, *(make_entry(sequence) for sequence in range(1, 40)))

    again = restarted(aggregate)
    add(again, make_entry(39), make_entry(40))

    assert succeeded(again) == 400
    assert again.position == f"{T0_MS + 40_000}-0"
    for ring in ("seconds", "ten_seconds"):
        points = getattr(again, ring).points(T0_MS + 41_000)
        assert sum(bucket.succeeded for _, bucket in points) in (400, 390)  # the step under way is not shown


def test_sums_that_outgrow_64_bits_survive_a_restart(make_entry: Any) -> None:
    aggregate = Aggregate()
    huge = {"lane": {"busy_ns": 2**63 - 1, "stats": {"running_sum_ns": 2**63 - 1}}, "idle_ns": 2**63 - 1}
    add(aggregate, *(make_entry(sequence, **huge) for sequence in range(1, 5)))

    again = restarted(aggregate)

    assert again.tasks["t"].counts["busy_ns"] == 4 * (2**63 - 1)
    assert again.sums["idle_ns"] == 4 * (2**63 - 1)


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"{}", encode_state(Aggregate().state())[:-3]])
def test_a_damaged_checkpoint_is_refused(damage: bytes) -> None:
    state = decode_state(damage)

    assert state is None or state.position == "0-0"


def test_silent_workers_leave_and_stopping_ones_leave_at_once(make_entry: Any) -> None:
    aggregate = Aggregate()
    add(aggregate, make_entry(1, "silent"), make_entry(9, "live"), make_entry(9, "gone", stopping=True))

    aggregate.expire(T0_MS + 1000 + SILENT_MS + 1)

    assert set(aggregate.workers) == {"live"}
    assert aggregate.now()["workers"] == 1
    assert succeeded(aggregate) == 30  # what they did stays


def test_a_worker_that_is_heard_of_again_is_shown_again(make_entry: Any) -> None:
    aggregate = Aggregate()
    add(aggregate, make_entry(1))
    aggregate.expire(T0_MS + 10**6)

    add(aggregate, make_entry(2, at_ms=T0_MS + 10**6))

    assert aggregate.now()["workers"] == 1


def test_names_are_bounded_and_the_rest_is_added_up(make_entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("MAX_TASKS", "MAX_ERRORS", "MAX_LIMITS", "MAX_WORKERS"):
        monkeypatch.setattr(module, bound, 3)
    aggregate = Aggregate()

    for number in range(10):
        lane = {"task": f"t{number}", "errors": {f"E{number}": 1}, "limits": {f"l{number}": 1}}
        add(aggregate, make_entry(1, f"w{number}", lane=lane))

    assert set(aggregate.tasks) == {"t0", "t1", "t2", OTHER}
    assert succeeded(aggregate) == 100
    assert sum(aggregate.errors.values()) == 10
    assert len(aggregate.errors) == 4
    assert len(aggregate.workers) == 3
    assert sum(aggregate.waiting_for_limits().values()) == 3


def test_the_memory_of_numbers_is_bounded(make_entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SEEN", 5)
    aggregate = Aggregate()

    for number in range(50):
        add(aggregate, make_entry(1, f"w{number}", at_ms=T0_MS + number))

    assert len(aggregate.state().seen) == 5


def test_histogram_fields_are_bounded(make_entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FIELDS", 10)
    aggregate = Aggregate()

    add(aggregate, make_entry(1, lane={"stats": {f"nonsense{number}": 1 for number in range(1000)}}))

    assert len(aggregate.tasks["t"].stats) == 10
