"""Limit and TaskPolicy: rates in words, and nonsense refused where it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tidegate.errors import ConfigurationError
from tidegate.model.limit import Limit, parse_rate
from tidegate.model.policy import TaskPolicy


@pytest.mark.parametrize(
    ("text", "per_s"),
    [("100/s", 100), ("30/m", 0.5), ("30/min", 0.5), ("5000/h", 5000 / 3600), ("1/ms", 1000), (2.5, 2.5)],
)
def test_rates_are_read_in_the_units_people_write(text: Any, per_s: float) -> None:
    assert parse_rate(text) == pytest.approx(per_s)


@pytest.mark.parametrize("text", ["", "fast", "10", "10/y", "-1/s", "0/s", 0, -3, float("nan"), float("inf")])
def test_what_is_not_a_rate_is_refused(text: Any) -> None:
    with pytest.raises(ConfigurationError):
        parse_rate(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limit("api"),
        lambda: Limit("api", rate="1/s", concurrency=1),
        lambda: Limit("no spaces", rate="1/s"),
        lambda: Limit("api{x}", rate="1/s"),
        lambda: Limit("api", concurrency=0),
        lambda: Limit("api", concurrency=1, burst=3),
        lambda: Limit("api", rate="1/s", burst=0),
        lambda: TaskPolicy(concurrency=0),
        lambda: TaskPolicy(timeout=0),
        lambda: TaskPolicy(timeout=5, hard_timeout=1),
        lambda: TaskPolicy(max_crashes=0),
        lambda: TaskPolicy(limits=(Limit("a", rate=1), Limit("a", rate=2))),
    ],
)
def test_nonsense_is_refused_with_a_remedy(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.remedy


def test_a_burst_is_a_tenth_of_a_second_unless_given() -> None:
    assert Limit("api", rate="200/s").burst_permits == 20
    assert Limit("api", rate="1/h").burst_permits == 1
    assert Limit("api", rate="1/h", burst=50).burst_permits == 50
