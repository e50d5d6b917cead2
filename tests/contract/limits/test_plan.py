"""The arithmetic of slots: whatever the rate and the burst, no window can hold more than it may."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tidegate.limits.clock_offset import ClockOffset
from tidegate.limits.plan import plan_rate


@given(rate=st.floats(1e-4, 1e6), burst=st.integers(1, 2000), uses=st.integers(1, 5000))
def test_the_shortest_window_that_holds_so_many_uses_is_long_enough(rate: float, burst: int, uses: int) -> None:
    plan = plan_rate(rate, burst)
    # The densest case: the first slot is used as late as allowed, the last one at its time.
    shortest_s = max(0.0, ((uses - 1) * plan.interval_ns - plan.tolerance_us * 1000) / 1e9)
    assert uses <= rate * shortest_s + burst + 1e-6 * uses


@given(rate=st.floats(0.01, 1e5), burst=st.integers(1, 2000))
def test_a_burst_that_can_be_caught_costs_no_rate(rate: float, burst: int) -> None:
    plan = plan_rate(rate, burst)
    if (burst - 1) / rate >= 0.025:
        assert plan.interval_ns == math.ceil(1e9 / rate)


@given(
    exchanges=st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**9)), min_size=1),
    skew=st.integers(-(10**15), 10**15),
)
def test_the_bounds_always_hold_the_truth(exchanges: list[tuple[int, int, int]], skew: int) -> None:
    offset, now = ClockOffset(), 10**18
    for there_ns, back_ns, gap_ns in exchanges:
        sent, read, received = now, now + there_ns, now + there_ns + back_ns
        offset.learn(sent_ns=sent, received_ns=received, server_us=(read + skew) // 1000)
        at = (received + skew) // 1000
        truth = at * 1000 - skew
        assert offset.earliest_ns(at) <= truth <= offset.latest_ns(at)
        now = received + gap_ns


def test_a_clock_that_was_set_is_believed_anew() -> None:
    offset = ClockOffset()
    offset.learn(sent_ns=0, received_ns=1000, server_us=10**9)
    offset.learn(sent_ns=2000, received_ns=3000, server_us=5 * 10**9)
    assert offset.latest_ns(5 * 10**9) == 3000
    assert offset.earliest_ns(5 * 10**9) == 1000
