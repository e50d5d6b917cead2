"""Batch sizes adapt to what items cost, weigh, and how fast they come."""

from __future__ import annotations

import pytest

from tidegate.producer.sizing import BatchSizer


def test_a_fixed_size_is_taken_as_it_is() -> None:
    sizer = BatchSizer(fixed=7, total=1_000_000)
    sizer.learn_batch(7, 7_000_000, 10)
    sizer.learn_stats({"running_count": 1000, "running_sum_ns": 10**12})

    assert sizer.next_size() == 7
    assert not sizer.adaptive


def test_an_unknown_workload_begins_with_one_item_and_grows() -> None:
    """A slow source must show its first item at once, a fast one must not pay for that long."""
    sizer = BatchSizer()
    sizes = []
    for _ in range(8):
        size = sizer.next_size()
        sizes.append(size)
        sizer.learn_batch(size, size * 4, 1000)

    assert sizes == [1, 4, 16, 64, 256, 1000, 1000, 1000]


def test_a_short_workload_is_shared_out() -> None:
    assert BatchSizer(total=320).next_size() == 10
    assert BatchSizer(total=5).next_size() == 1
    assert BatchSizer(total=0).next_size() == 1


@pytest.mark.parametrize(
    ("item_ms", "concurrency", "expected"),
    [(100, 1, 10), (100, 50, 500), (5000, 1, 1), (1, 8, 8000), (0.001, 1, 100_000)],
)
def test_size_aims_at_a_second_of_work(item_ms: float, concurrency: int, expected: int) -> None:
    sizer = BatchSizer(total=100_000_000, concurrency=concurrency)
    for _ in range(6):
        sizer.learn_batch(sizer.next_size(), 1, 0)
    sizer.learn_stats({"running_count": 100, "running_sum_ns": int(100 * item_ms * 1e6)})
    for _ in range(6):
        sizer.learn_batch(sizer.next_size(), 1, 0)

    assert sizer.next_size() == pytest.approx(expected, abs=1)


def test_a_few_measurements_are_not_believed() -> None:
    """The first items of a job often pay for imports and connections."""
    sizer = BatchSizer(total=1_000_000)
    sizer.learn_stats({"running_count": 3, "running_sum_ns": 30 * 10**9})

    assert sizer.next_size() == 1000


def test_large_items_make_small_batches() -> None:
    sizer = BatchSizer(total=1_000_000, target_bytes=256 << 10)
    sizer.learn_batch(100, 100 * (64 << 10), 0)

    assert sizer.next_size() == 4


def test_one_batch_of_small_items_does_not_unleash_a_huge_one() -> None:
    """Sizes mix: after large items the next batch stays careful for a while."""
    sizer = BatchSizer(total=1_000_000, target_bytes=256 << 10)
    sizer.learn_batch(4, 4 * (64 << 10), 0)
    sizer.learn_batch(4, 4, 0)

    assert sizer.next_size() <= 8


def test_a_slow_source_is_not_held_back() -> None:
    """Items that come every 100 ms go out a few at a time, not when a thousand are together."""
    sizer = BatchSizer()
    for _ in range(5):
        size = sizer.next_size()
        sizer.learn_batch(size, size * 10, size * 100_000_000)

    assert sizer.next_size() <= 3
