"""The two clocks, named by use: ``mono_ns`` for durations in this process, ``wall_ms`` for people.

Nothing in the ledger depends on either: the server's own clock decides there.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a component needs of time; tests pass a :class:`ManualClock`."""

    def mono_ns(self) -> int:
        """Nanoseconds that never go back; only differences mean anything."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, for display only."""


class SystemClock:
    """The operating system's clocks."""

    def mono_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when told to.

    >>> clock = ManualClock(); clock.advance(1.5); clock.mono_ns()
    1500000000
    """

    def __init__(self, mono_ns: int = 0, wall_ms: int = 0) -> None:
        self._mono_ns = mono_ns
        self._wall_ms = wall_ms

    def mono_ns(self) -> int:
        return self._mono_ns

    def wall_ms(self) -> int:
        return self._wall_ms

    def advance(self, seconds: float) -> None:
        self._mono_ns += round(seconds * 1e9)
        self._wall_ms += round(seconds * 1e3)
