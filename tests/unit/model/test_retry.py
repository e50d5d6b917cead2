"""Retry: what it accepts, and how long it waits."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import ConfigurationError
from tidegate.model.retry import Retry, backoff_s


@pytest.mark.parametrize(
    "nonsense",
    [
        {"attempts": 0},
        {"base": -1},
        {"factor": 0.5},
        {"cap": -0.1},
        {"jitter": "some"},
        {"deadline": 0},
        {"budget": -1},
    ],
)
def test_nonsense_is_refused_with_the_option_named_and_a_remedy(nonsense: dict[str, Any]) -> None:
    """A policy that cannot be meant fails where it is written, not in a worker."""
    with pytest.raises(ConfigurationError) as caught:
        Retry(**nonsense)

    assert next(iter(nonsense)) in str(caught.value)
    assert caught.value.remedy


@given(
    st.floats(0, 10),
    st.floats(1, 4),
    st.floats(0, 60),
    st.integers(1, 20),
    st.sampled_from(["full", "none", "equal"]),
    st.integers(),
)
def test_the_wait_never_exceeds_the_cap_nor_the_exponential_ceiling(
    base: float, factor: float, cap: float, failures: int, jitter: Any, seed: int
) -> None:
    """Jitter only ever shortens a wait, so a cap is a cap."""
    retry = Retry(base=base, factor=factor, cap=cap, jitter=jitter)

    wait = backoff_s(retry, failures, Random(seed))

    assert 0 <= wait <= min(cap, base * factor ** (failures - 1)) * (1 + 1e-9)


def test_without_jitter_the_wait_doubles_until_the_cap() -> None:
    retry = Retry(base=0.5, factor=2, cap=3, jitter="none")

    assert [backoff_s(retry, n, Random(0)) for n in (1, 2, 3, 4, 5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_full_jitter_uses_the_whole_range() -> None:
    """Half of the point of full jitter is that some waits are short."""
    random = Random(7)
    waits = [backoff_s(Retry(base=1, cap=1), 1, random) for _ in range(2000)]

    assert min(waits) < 0.01
    assert max(waits) > 0.99
    assert abs(sum(waits) / len(waits) - 0.5) < 0.05


def test_decorrelated_jitter_stays_between_base_and_three_times_the_last_wait() -> None:
    random = Random(3)
    retry = Retry(base=0.1, cap=10, jitter="decorrelated")
    last = 0.1
    for _ in range(200):
        wait = backoff_s(retry, 1, random, last)
        assert 0.1 <= wait <= min(10, max(0.1, last * 3))
        last = wait


def test_only_the_classes_asked_for_are_retried_and_not_on_wins() -> None:
    retry = Retry(on=(OSError,), not_on=(PermissionError,))

    assert retry.wants(ConnectionError())
    assert not retry.wants(PermissionError())
    assert not retry.wants(ValueError())


def test_the_predicate_has_the_last_word() -> None:
    retry = Retry(when=lambda error: "again" in str(error))

    assert retry.wants(ValueError("try again"))
    assert not retry.wants(ValueError("no"))
