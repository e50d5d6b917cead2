"""What the server's clock says in terms of ours: bounds that are never wrong, only more or less tight."""

from __future__ import annotations

#: Two clocks drift apart by at most this much: the kernel slews a clock by 500 parts in a million, and each has a share.
_DRIFT_PER_S_NS = 1_000_000


class ClockOffset:
    """Bounds of ``our monotonic clock - the server's clock``, learned from requests and their answers.

    The server reads its clock between our sending and our receiving, so every exchange gives a lower and an upper bound.
    Bounds of several exchanges are intersected, loosened by the drift that clocks may have: one quick exchange makes up
    for slow ones. If they contradict each other the server's clock was set, and only the newest exchange counts.

    >>> offset = ClockOffset()
    >>> offset.learn(sent_ns=1_000, received_ns=5_000, server_us=100)
    >>> offset.earliest_ns(100), offset.latest_ns(100)
    (0, 5000)
    """

    def __init__(self) -> None:
        self._low_ns: int | None = None
        self._high_ns = 0
        self._at_ns = 0

    def learn(self, *, sent_ns: int, received_ns: int, server_us: int) -> None:
        """One exchange: the server's clock stood at ``server_us`` (microseconds, cut off) between the two moments."""
        # The server cuts its time to microseconds: it was up to 1 us later than it says.
        low, high = sent_ns - (server_us + 1) * 1000, received_ns - server_us * 1000
        if self._low_ns is not None:
            drift = (received_ns - self._at_ns) * _DRIFT_PER_S_NS // 1_000_000_000
            kept_low, kept_high = max(low, self._low_ns - drift), min(high, self._high_ns + drift)
            if kept_low <= kept_high:
                low, high = kept_low, kept_high
        self._low_ns, self._high_ns, self._at_ns = low, high, received_ns

    def earliest_ns(self, server_us: int) -> int:
        """Our clock when the server's shows that time, or before."""
        return (self._low_ns or 0) + server_us * 1000

    def latest_ns(self, server_us: int) -> int:
        """Our clock when the server's shows that time, or after."""
        return self._high_ns + server_us * 1000
