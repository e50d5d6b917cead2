"""Lingering: a batch of which nothing is left but items that wait for their keys gives its slot back.

A few times a second each batch under a keyed limit is looked at. What is finished was committed in parts; when all that is
left only waits for keys, and at the pace of the last ``max_wait`` seconds would do so for long, the rest goes back to the
ledger as a delayed batch. So a slot is never held for minutes by a slow host, and other jobs and other hosts come through.
An item that is handed back this way loses its place in the line of its key, and no attempt.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable

from tidegate.executor.host import Run
from tidegate.worker.work import BatchWork

#: What will be through within this time at its present pace may stay.
_STAY_S = 30.0
#: A pause may be ended by hand, and a rate be raised: nothing is put off for longer.
_LONGEST_DELAY_S = 60.0


class Lingering:
    """``works``: the batches at work now."""

    def __init__(self, works: Callable[[], Iterable[BatchWork]]) -> None:
        self._works = works

    def look(self) -> None:
        """Hand back what lingers. Does no input or output: the slot's own thread commits."""
        for work in self._works():
            if work.lane.has_keys and work.lane.policy.max_wait > 0:
                self._look_at(work)

    def _look_at(self, work: BatchWork) -> None:
        run = work.run
        if run is None or run.done or work.closed or work.yielding:
            return
        now, left = time.monotonic_ns(), run.remaining
        if work.watched_run is not run:
            work.watched_run, work.watched_ns, work.watched_left = run, now, left
            return
        waited_s = (now - work.watched_ns) / 1e9
        if waited_s < work.lane.policy.max_wait or run.limited() < left:
            return
        if (work.watched_left - left) * _STAY_S >= left * waited_s:
            work.watched_ns, work.watched_left = now, left
            return
        work.due_ms = max(work.due_ms, self._delay_ms(work, run, now))
        work.yielding = True
        run.drain()

    def _delay_ms(self, work: BatchWork, run: Run, now_ns: int) -> int:
        """At least ``max_wait``, longer when it is known that none of the keys opens before; spread a little."""
        until_ns = run.limited_until()
        known_s = (until_ns - now_ns) / 1e9 if until_ns is not None else 0.0
        delay_s = min(max(work.lane.policy.max_wait, known_s), _LONGEST_DELAY_S)
        return round(delay_s * 1000 * random.uniform(1.0, 1.25))
