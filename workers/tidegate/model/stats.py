"""The coarse histograms that a job keeps in the ledger: sparse fields of one hash, added up by every commit.

Sixteen buckets to an octave, so a value is off by at most 1/32 (3.2 %). The C core computes the same index
(``tg_coarse_index``) and a test compares them. Field names are ``CLASS:INDEX`` for buckets, and ``CLASS_sum_ns``,
``CLASS_count``, ``CLASS_min_ns``, ``CLASS_max_ns``.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

#: The classes into which every moment of an item's life falls. ``queued`` here is inside the worker; the time a batch
#: waited in the ledger is ``ready``.
TIME_CLASSES = ("ready", "queued", "limited", "backoff", "running", "settling")


def coarse_index(value_ns: int) -> int:
    """Bucket of a duration.

    >>> coarse_index(5), coarse_index(16), coarse_index(1_000_000)
    (5, 16, 270)
    """
    if value_ns < 16:
        return max(0, value_ns)
    exponent = value_ns.bit_length() - 1
    return (exponent - 3) * 16 + ((value_ns >> (exponent - 4)) - 16)


def coarse_bounds_ns(index: int) -> tuple[int, int]:
    """Lowest value of a bucket, and the lowest of the next one.

    >>> coarse_bounds_ns(16)
    (16, 17)
    """
    if index < 16:
        return index, index + 1
    exponent = index // 16 + 3
    width = 1 << (exponent - 4)
    low = (16 + index % 16) * width
    return low, low + width


class Distribution(msgspec.Struct, frozen=True):
    """A summary of one class of time, in nanoseconds. ``count`` of 0 means that nothing was measured."""

    count: int = 0
    sum_ns: int = 0
    min_ns: int = 0
    max_ns: int = 0
    buckets: dict[int, int] = msgspec.field(default_factory=dict)

    @property
    def mean_ns(self) -> float:
        return self.sum_ns / self.count if self.count else 0.0

    def quantile_ns(self, share: float) -> float:
        """The value below which ``share`` (0 to 1) of the measurements lie, to the bucket's middle."""
        if not self.count or not self.buckets:
            return 0.0
        total = sum(self.buckets.values())
        rank = max(1, min(total, -(-share * total // 1)))
        seen = 0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if seen >= rank:
                low, high = coarse_bounds_ns(index)
                return float(min(max((low + high - 1) / 2, self.min_ns), self.max_ns))
        return float(self.max_ns)


def distributions(fields: Mapping[str, int]) -> dict[str, Distribution]:
    """Distributions by class from the flat fields of a ledger hash."""
    found: dict[str, Distribution] = {}
    for name in TIME_CLASSES:
        prefix = f"{name}:"
        buckets = {int(key[len(prefix) :]): value for key, value in fields.items() if key.startswith(prefix)}
        found[name] = Distribution(
            count=fields.get(f"{name}_count", sum(buckets.values())),
            sum_ns=fields.get(f"{name}_sum_ns", 0),
            min_ns=fields.get(f"{name}_min_ns", 0),
            max_ns=fields.get(f"{name}_max_ns", 0),
            buckets=buckets,
        )
    return found
