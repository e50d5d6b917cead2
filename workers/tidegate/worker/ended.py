"""From the outcome log of a dead process to what the ledger is told: items that had ended need not run again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from tidegate.executor.outlog import Recorded
from tidegate.model.outcome import FailureRecord, Outcome
from tidegate.model.wire import encode_failures, encode_results
from tidegate.worker import bits
from tidegate.worker.held import HeldLease
from tidegate.worker.recorder import WaitingFailure, read_failure
from tidegate.worker.work import DEAD_LETTER


@dataclass(slots=True)
class Ended:
    """Items of one lease that ended and were not committed, in the fields of a settlement. ``lost``: items that ended and
    whose result or failure was not kept, so that they have to run again."""

    positions: list[int] = field(default_factory=list)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    executions: int = 0
    values: list[msgspec.Raw] = field(default_factory=list)
    valued: list[int] = field(default_factory=list)
    records: list[FailureRecord] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    traces: dict[str, str] = field(default_factory=dict)
    lost: int = 0

    @property
    def results(self) -> bytes:
        """The result block."""
        return encode_results(self.valued, self.values) if self.values else b""

    @property
    def failures(self) -> bytes:
        """The failure block."""
        return encode_failures(self.records) if self.records else b""


def ended_items(held: HeldLease, recorded: Mapping[int, Recorded], done_bits: bytes) -> Ended:
    """What of ``recorded`` is still to be committed, given what the ledger has already (``done_bits``)."""
    found = Ended()
    for position in sorted(recorded):
        if position < held.items and not bits.is_set(done_bits, position):
            _add(found, held, recorded[position])
    return found


def _add(found: Ended, held: HeldLease, item: Recorded) -> None:
    failure = None
    if item.outcome in DEAD_LETTER and not item.lost:
        failure = read_failure(item.content)
    if item.lost or (item.outcome in DEAD_LETTER and failure is None):
        found.lost += 1
        return
    position = item.position
    if item.outcome is Outcome.SUCCEEDED:
        found.valued.append(held.first_index + position)
        found.values.append(msgspec.Raw(item.content))
    elif failure is not None:
        _add_failure(found, failure)
    found.positions.append(position)
    found.outcomes[item.outcome] += 1
    # What was tried under earlier leases was counted then.
    before = held.attempts[position] if position < len(held.attempts) else 0
    found.executions += max(0, item.attempts - before)


def _add_failure(found: Ended, failure: WaitingFailure) -> None:
    record = failure.record
    found.records.append(record)
    found.errors[record.error_type] += 1
    if failure.traceback:
        found.traces.setdefault(record.fingerprint, failure.traceback.rstrip())
