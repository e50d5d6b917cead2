"""Coarse histograms: a stated error, and quantiles that respect it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tidegate.model.stats import Distribution, coarse_bounds_ns, coarse_index, distributions


@given(st.integers(0, 2**62))
def test_every_duration_falls_into_the_bucket_that_holds_it(value_ns: int) -> None:
    low, high = coarse_bounds_ns(coarse_index(value_ns))

    assert low <= value_ns < high
    assert value_ns < 16 or (high - low) / low <= 1 / 16


@given(st.integers(0, 1000))
def test_buckets_meet_without_gap_or_overlap(index: int) -> None:
    assert coarse_bounds_ns(index)[1] == coarse_bounds_ns(index + 1)[0]


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_the_stated_error_of_the_exact_one(values: list[int], share: float) -> None:
    """A report that says p95 may be off by 1/32 of the value, not more."""
    buckets = dict(Counter(coarse_index(value) for value in values))
    found = Distribution(len(values), sum(values), min(values), max(values), buckets).quantile_ns(share)

    exact = sorted(values)[max(1, min(len(values), -int(-share * len(values) // 1))) - 1]
    assert abs(found - exact) <= exact / 32 + 1


def test_nothing_measured_is_not_a_measurement_of_nothing() -> None:
    empty = Distribution()

    assert empty.count == 0
    assert empty.quantile_ns(0.5) == 0.0
    assert empty.mean_ns == 0.0


def test_fields_of_the_ledger_become_distributions_by_class() -> None:
    found = distributions(
        {
            "running:16": 2,
            "running_count": 2,
            "running_sum_ns": 32,
            "running_min_ns": 16,
            "running_max_ns": 16,
            "ready:3": 1,
        }
    )

    assert found["running"] == Distribution(2, 32, 16, 16, {16: 2})
    assert found["ready"].count == 1
    assert found["limited"].count == 0
