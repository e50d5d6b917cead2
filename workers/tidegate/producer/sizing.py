"""How many items the next batch gets.

A fixed size is taken as it is. An adaptive one aims at ``target_s`` of work and ``target_bytes`` of payload, whichever is
reached first, and never lets a slow source hold items back: a batch that takes long to collect is cut short.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Items in a batch while nothing is known of their cost: a wrong guess then costs little either way.
_UNKNOWN_COST_ITEMS = 1000
#: A workload of known length is split into at least this many batches, so that several workers get a share.
_SHARES = 32
#: Growth from one batch to the next.
_GROWTH = 4
#: A source that takes longer than this to fill a batch gets smaller ones.
_COLLECT_NS = 250_000_000
_LARGEST = 100_000
#: Items that must have been run before their times are believed.
_TRUSTED_COUNT = 20


class BatchSizer:
    """Decides once per batch. ``fixed``: the user's size, or ``None`` to adapt; ``total``: items, if known.

    >>> BatchSizer(fixed=500).next_size()
    500
    >>> sizer = BatchSizer(total=64_000)
    >>> sizer.next_size()
    1000
    >>> sizer.learn_stats({"running_count": 100, "running_sum_ns": 100 * 50_000_000})  # 50 ms an item
    >>> sizer.next_size()
    20
    """

    def __init__(
        self,
        *,
        fixed: int | None = None,
        total: int | None = None,
        concurrency: int = 1,
        target_s: float = 1.0,
        target_bytes: int = 256 << 10,
    ) -> None:
        self.fixed = fixed
        self._concurrency = max(1, concurrency)
        self._target_ns = target_s * 1e9
        self._target_bytes = target_bytes
        self._most = _LARGEST if total is None else max(1, -(-total // _SHARES))
        # An iterable without a length may be slow: begin with one item, and learn how fast it is.
        self._next = 1 if total is None else min(_UNKNOWN_COST_ITEMS, self._most)
        self._work_ns = 0.0
        self._item_bytes = 0.0
        self._collect_ns = 0.0

    @property
    def adaptive(self) -> bool:
        return self.fixed is None

    def next_size(self) -> int:
        """Items for the next batch, at least 1."""
        if self.fixed is not None:
            return self.fixed
        size: float = min(self._next, self._most)
        size = min(size, self._target_ns / self._work_ns) if self._work_ns else min(size, _UNKNOWN_COST_ITEMS)
        if self._item_bytes:
            size = min(size, self._target_bytes / self._item_bytes)
        if self._collect_ns:
            size = min(size, _COLLECT_NS / self._collect_ns)
        return max(1, int(size))

    def learn_batch(self, items: int, payload_bytes: int, collect_ns: int) -> None:
        """What the last batch was: its items, its bytes, and the time that the source took to give them."""
        if not items:
            return
        self._next = min(_LARGEST, max(self._next, items * _GROWTH))
        # The larger of now and a fading memory: one batch of small items must not be followed by a huge one.
        self._item_bytes = max(payload_bytes / items, 0.5 * self._item_bytes)
        self._collect_ns = max(collect_ns / items, 0.5 * self._collect_ns)

    def learn_stats(self, stats: Mapping[str, int]) -> None:
        """What workers have measured so far (fields of ``model.stats``)."""
        count = stats.get("running_count", 0)
        if count >= _TRUSTED_COUNT:
            # A batch's items run side by side, up to the task's concurrency.
            self._work_ns = stats.get("running_sum_ns", 0) / count / self._concurrency
