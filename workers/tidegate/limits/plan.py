"""How a rate becomes slots: the interval between them, and how long after its time a slot may be used.

The bound. Let ``T = 1 / rate`` and ``B = burst``. The server hands out slots at times ``s1 < s2 < …`` that lie at least
``T'`` apart, each once, whatever dies (``lease_slots.lua``). A slot is used at most once, at a time ``u`` with
``s <= u <= s + D``, or never: a process that leased it drops it afterwards, and a dead process uses none. Take any
closed window ``[a, a + W]`` and let ``n + 1`` slots be used in it. Their times lie in ``[a - D, a + W]``, so
``n * T' <= W + D``.

* ``D <= (B - 1) * T`` and ``T' = T``: ``n + 1 <= (W + D) / T + 1 <= rate * W + B``.
* A larger ``D`` (bursts too small for a process to catch its slots in time) needs ``T' = (T + D) / B``, which is then
  above ``T``. If ``n < B``, then ``n + 1 <= B``. If ``n >= B``, then ``W >= n * T' - D >= (n - B) * T + B * T' - D =
  (n - B + 1) * T``, so ``n + 1 <= rate * W + B``.

So in both cases no window of any length sees more than ``rate * W + burst`` uses. The price of a burst of 1 is that the
rate is approached from below: ``1 / (T + D)`` instead of ``1 / T``.

What the proof takes for granted: that the server's clock is not set back or forth by hand (a slewed clock is covered by
``clock_offset.py``), and that the server does not forget the limit (append-only file) while workers use it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: A slot can be caught by a process that comes this late: a tenth of the interval, between these bounds; of long intervals
#: a fiftieth, which costs 2 % of the rate, and saves the whole interval when all threads are busy at the slot's time.
_LEAST_TOLERANCE_NS = 3_000_000
_MOST_TOLERANCE_NS = 25_000_000
_LONG_INTERVAL_SHARE = 50
_MOST_LONG_TOLERANCE_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class RatePlan:
    """Slots of one rate limit: ``interval_ns`` apart, usable until ``tolerance_us`` after their time."""

    interval_ns: int
    tolerance_us: int

    @property
    def rate_per_s(self) -> float:
        """Slots per second; the limit's rate, or a little less when its burst is too small to be caught in time."""
        return 1e9 / self.interval_ns


def plan_rate(rate_per_s: float, burst: int) -> RatePlan:
    """The slots of a limit of ``rate_per_s`` with bursts of ``burst`` permits.

    >>> plan_rate(100, 10)
    RatePlan(interval_ns=10000000, tolerance_us=90000)
    >>> plan_rate(1, 1)
    RatePlan(interval_ns=1025000000, tolerance_us=25000)
    """
    interval = math.ceil(1e9 / rate_per_s)
    least = min(max(interval // 10, _LEAST_TOLERANCE_NS), _MOST_TOLERANCE_NS)
    least = max(least, min(interval // _LONG_INTERVAL_SHARE, _MOST_LONG_TOLERANCE_NS))
    tolerance = max((burst - 1) * interval, least) // 1000 * 1000
    spaced = max(interval, math.ceil((interval + tolerance) / burst))
    return RatePlan(interval_ns=spaced, tolerance_us=tolerance // 1000)
