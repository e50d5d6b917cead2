"""What an executor's limit must offer so that permits can come from outside. ``executor.HostLimit`` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Pausable(Protocol):
    """What both kinds have."""

    def pause_until(self, mono_ns: int) -> None:
        """Nothing (of any key) starts before that time; an earlier one than the present pause is ignored, 0 ends it."""


class SuppliedLimit(Pausable, Protocol):
    """One limit inside one process, whose permits are leased from the cluster. Times: ``time.monotonic_ns()``."""

    #: Called from any thread when an item was told to come back later: name of the limit, seconds.
    on_retry_after: Callable[[str, float], None] | None

    def set_capacity(self, permits: int) -> None:
        """Concurrency: permits from now on. Lowering it takes nothing back from running items."""

    def offer(self, start_mono_ns: int, interval_ns: int, count: int, tolerance_ns: int) -> None:
        """Rate: slot ``i`` admits one start from ``start + i * interval`` until ``tolerance`` later, then it is dropped."""

    def demand(self) -> int:
        """Items that wait for this limit now."""

    def in_use(self) -> int:
        """Concurrency: permits in use now."""

    def used(self) -> int:
        """Permits used ever."""


class SuppliedKeys(Pausable, Protocol):
    """The executor's side of one keyed limit. Keys are 64-bit numbers. Times: ``time.monotonic_ns()``."""

    #: Called from any thread when an item was told to come back later: name of the limit, key, seconds.
    on_key_retry_after: Callable[[str, int, float], None] | None

    def set_key_permits(self, permits: Sequence[tuple[int, int]]) -> None:
        """Concurrency: permits of each ``(key, permits)`` from now on. Lowering them takes nothing back."""

    def offer_key(self, key: int, start_mono_ns: int, interval_ns: int, count: int, tolerance_ns: int) -> None:
        """Rate: as ``SuppliedLimit.offer``, for one key."""

    def pause_key_until(self, key: int, mono_ns: int) -> None:
        """Nothing of this key starts before that time; 0 ends a pause."""

    def take_news(self, most: int) -> list[tuple[int, int, int, int]]:
        """``(key, items waiting, permits in use, starts)`` of keys that changed since they were last told."""

    def forget_idle_keys(self) -> None:
        """Give the memory of keys back that nothing waits for or uses."""
