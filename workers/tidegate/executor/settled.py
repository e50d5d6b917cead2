"""What a run hands out: outcomes since the last take, in the form that a commit needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tidegate.executor.failure import ItemFailure, placeholder
from tidegate.model.outcome import Outcome

_OUTCOMES = tuple(Outcome)


@dataclass(slots=True)
class Settled:
    """What settled between two takes of a run.

    ``count``: items, all five outcomes. ``bits``: bitmap of their positions, ``b""`` when the whole run settled in this one
    take. ``ok_first``: position of the first success when successes are contiguous, else -1, and then ``ok_positions`` has
    them all. ``ok_values``: in position order. ``returned``: positions handed back without (another) attempt, and
    ``deferred``: ``(position, due_in_ms)`` of waits longer than the policy's ``max_wait``; both only in the last take.
    ``attempts``: a byte per position, executions so far, when something was returned or deferred. ``stats``: fields as in
    :mod:`tidegate.model.stats`; counts, sums and buckets are deltas, min and max are of the whole run.
    """

    count: int
    bits: bytes
    ok_first: int
    ok_positions: list[int] | None
    ok_values: list[Any]
    failures: list[ItemFailure]
    returned: list[int]
    deferred: list[tuple[int, int]]
    attempts: bytes
    outcomes: dict[Outcome, int]
    executions: int
    retries: int
    stats: dict[str, int]


def settled_of(taken: tuple[Any, ...]) -> Settled:
    """The tuple of ``_native.Run.take`` with names."""
    settled = Settled(*taken)
    settled.failures = [record or placeholder(position, code) for position, code, record in taken[5]]
    settled.failures.sort(key=lambda failure: failure.position)
    settled.returned.sort()
    settled.deferred.sort()
    settled.outcomes = {outcome: number for outcome, number in zip(_OUTCOMES, taken[9], strict=True) if number}
    return settled
