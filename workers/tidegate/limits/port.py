"""What an executor's limit must offer so that permits can come from outside. ``executor.HostLimit`` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class SuppliedLimit(Protocol):
    """One limit inside one process, whose permits are leased from the cluster. Times: ``time.monotonic_ns()``."""

    #: Called from any thread when an item was told to come back later: name of the limit, seconds.
    on_retry_after: Callable[[str, float], None] | None

    def set_capacity(self, permits: int) -> None:
        """Concurrency: permits from now on. Lowering it takes nothing back from running items."""

    def offer(self, start_mono_ns: int, interval_ns: int, count: int, tolerance_ns: int) -> None:
        """Rate: slot ``i`` admits one start from ``start + i * interval`` until ``tolerance`` later, then it is dropped."""

    def pause_until(self, mono_ns: int) -> None:
        """Nothing starts before that time; an earlier one than the present pause is ignored, 0 ends it."""

    def demand(self) -> int:
        """Items that wait for this limit now."""

    def in_use(self) -> int:
        """Concurrency: permits in use now."""

    def used(self) -> int:
        """Permits used ever."""
