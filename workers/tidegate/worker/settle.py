"""From what the executor settled to what the ledger is told.

When every item succeeded, nothing here touches a single item: one block is encoded for all. Only failures, and results
that cannot be stored, are looked at one by one.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from tidegate.clock import Clock, SystemClock
from tidegate.errors import PayloadError
from tidegate.ledger.port import Settlement
from tidegate.model.outcome import FailureRecord, Outcome
from tidegate.model.stats import coarse_index
from tidegate.model.wire import encode_argument, encode_failures, encode_results, split_items
from tidegate.worker import bits
from tidegate.worker.facts import JobFacts
from tidegate.worker.work import DEAD_LETTER, BatchWork, crash_count

if TYPE_CHECKING:
    from tidegate.executor.host import ItemFailure, Settled

_MAX_MESSAGE = 4000
#: Results smaller than this are sent without asking whether the job keeps any.
_SMALL_BLOCK = 4 << 10
CRASHED_TYPE = "ProcessCrashed"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a lease is given up, when it is."""

    hand_back: bool = False
    delay_ms: int = 0
    attempts: bytes = b""


NOT_ENDING = Ending()


@dataclass(slots=True)
class _Found:
    """What one pass over the failures and the results that cannot be stored gathers."""

    records: list[FailureRecord] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    traces: dict[str, str] = field(default_factory=dict)
    arguments: list[bytes] | None = None


class Packer:
    """Makes settlements. ``max_item_bytes``: a larger result fails its item; ``max_block_bytes``: results of one commit.
    ``facts`` are asked only when they matter: the ledger itself drops results that a job does not keep."""

    def __init__(self, max_item_bytes: int, max_block_bytes: int, facts: JobFacts, clock: Clock | None = None) -> None:
        self._max_item = max_item_bytes
        self._max_block = max_block_bytes
        self._facts = facts
        self._clock = clock or SystemClock()
        self._traces = _Remembered(10_000)

    def pack(self, work: BatchWork, settled: Settled, ending: Ending = NOT_ENDING) -> list[Settlement]:
        """One settlement, or several when the results are too many for one; only the last one ends the lease."""
        block = b""
        if settled.ok_values:
            try:
                block = encode_results(_positions(work, settled), settled.ok_values)
            except Exception:  # noqa: BLE001 - a value's own code may raise anything; one by one we see whose it was
                if self._facts.keeps(work.lease.job_id):
                    return self._pack_apart(work, settled, ending)
            if len(block) > _SMALL_BLOCK and not self._facts.keeps(work.lease.job_id):
                block = b""
            elif len(block) > self._max_item:
                return self._pack_apart(work, settled, ending)
        if settled.failures or work.crashed_out:
            found = _Found()
            self._gather(work, settled, found)
            return [self._whole(work, settled, ending=ending, block=block, found=found)]
        return [
            Settlement(
                settled=settled.count,
                bits=_bits(work, settled),
                outcomes=settled.outcomes,
                executions=settled.executions,
                retries=settled.retries,
                results=block,
                stats=_stats(work, settled),
                hand_back=ending.hand_back,
                delay_ms=ending.delay_ms,
                attempts=ending.attempts,
            )
        ]

    def committed(self, work: BatchWork, settlement: Settlement) -> None:
        """The ledger has taken it: its traces need not be sent again."""
        for fingerprint in settlement.traces:
            self._traces.add((work.lease.job_id, fingerprint))

    # -- all in one --------------------------------------------------------------------------------------------
    def _whole(
        self,
        work: BatchWork,
        settled: Settled,
        *,
        ending: Ending,
        block: bytes,
        found: _Found,
        outcomes: dict[Outcome, int] | None = None,
    ) -> Settlement:
        crashed = work.crashed_out
        work.crashed_out = []
        tally = dict(settled.outcomes if outcomes is None else outcomes)
        bitmap = _bits(work, settled)
        if crashed:
            tally[Outcome.CRASHED] = tally.get(Outcome.CRASHED, 0) + len(crashed)
            bitmap = bits.union(bitmap, bits.of(crashed, work.lease.items))
        work.lane.note(found.errors, len(crashed))
        return Settlement(
            settled=settled.count + len(crashed),
            bits=bitmap,
            outcomes=tally,
            executions=settled.executions,
            retries=settled.retries,
            results=block,
            failures=encode_failures(found.records) if found.records else b"",
            traces=found.traces,
            errors=dict(found.errors),
            stats=_stats(work, settled),
            hand_back=ending.hand_back,
            delay_ms=ending.delay_ms,
            attempts=ending.attempts,
        )

    # -- results looked at one by one --------------------------------------------------------------------------
    def _pack_apart(self, work: BatchWork, settled: Settled, ending: Ending) -> list[Settlement]:
        found = _Found()
        first = work.lease.first_index
        blocks: list[tuple[list[int], list[msgspec.Raw]]] = [([], [])]
        size = 0
        for position, value in zip(_batch_positions(settled), settled.ok_values, strict=True):
            raw, reason = self._encoded(value)
            if raw is None:
                self._add(work, found, _unstorable(first + position, position, reason))
                continue
            if size + len(raw) > self._max_block and blocks[-1][0]:
                blocks.append(([], []))
                size = 0
            blocks[-1][0].append(position)
            blocks[-1][1].append(msgspec.Raw(raw))
            size += len(raw)
        refused = len(found.records)
        self._gather(work, settled, found)
        parts = [_part(work, positions, values) for positions, values in blocks[:-1]]
        sent = sum(part.settled for part in parts)
        last_positions, last_values = blocks[-1]
        block = encode_results([first + p for p in last_positions], last_values) if last_positions else b""
        outcomes = dict(settled.outcomes)
        outcomes[Outcome.SUCCEEDED] = outcomes.get(Outcome.SUCCEEDED, 0) - refused - sent
        outcomes[Outcome.FAILED] = outcomes.get(Outcome.FAILED, 0) + refused
        tally = {key: n for key, n in outcomes.items() if n}
        rest = self._whole(work, settled, ending=ending, block=block, found=found, outcomes=tally)
        if parts:
            earlier = b""
            for part in parts:
                earlier = bits.union(earlier, part.bits)
            whole = rest.bits or bits.missing(work.skip, work.lease.items)
            remaining = int.from_bytes(whole, "little") & ~int.from_bytes(earlier, "little")
            rest = _with(rest, rest.settled - sent, remaining.to_bytes(len(whole), "little"))
        return [*parts, rest]

    def _encoded(self, value: Any) -> tuple[bytes | None, str]:
        try:
            raw = encode_argument(value)
        except Exception as error:  # noqa: BLE001 - a value's own code may raise anything
            return None, (
                f"it cannot be encoded ({str(error)[:500]}): return plain data (numbers, text, bytes, lists, dicts, "
                "dataclasses), or store it and return a reference"
            )
        if len(raw) > self._max_item:
            return None, (
                f"the result takes {len(raw):,} bytes, over the limit of {self._max_item:,}: "
                "store it and return a reference, or raise max_item_bytes"
            )
        return raw, ""

    # -- failures ----------------------------------------------------------------------------------------------
    def _gather(self, work: BatchWork, settled: Settled, found: _Found) -> None:
        for failure in settled.failures:
            self._add(work, found, failure)
        for position in work.crashed_out:
            self._add(work, found, _given_up(work, position))

    def _add(self, work: BatchWork, found: _Found, failure: ItemFailure | _OwnFailure) -> None:
        if failure.outcome not in DEAD_LETTER:
            return
        if found.arguments is None:
            found.arguments = work.arguments or arguments_of(work)
        found.errors[failure.error_type[:200]] += 1
        if failure.traceback and (work.lease.job_id, failure.fingerprint) not in self._traces:
            origin = self._facts.origin(work.lease.job_id)
            found.traces.setdefault(failure.fingerprint, f"{failure.traceback.rstrip()}\n{origin}".rstrip())
        found.records.append(dead_letter(work, failure, found.arguments, self._clock.wall_ms()))


def dead_letter(
    work: BatchWork, failure: ItemFailure | _OwnFailure, arguments: Sequence[bytes], finished_wall_ms: int
) -> FailureRecord:
    """What is kept of a failure. ``arguments``: the batch's items as they were sent."""
    position = failure.position
    return FailureRecord(
        index=work.lease.first_index + position,
        outcome=failure.outcome,
        error_type=failure.error_type[:200],
        message=failure.message[:_MAX_MESSAGE],
        fingerprint=failure.fingerprint,
        attempts=failure.attempts,
        arguments=arguments[position] if position < len(arguments) else b"",
        run_ns=failure.run_ns,
        finished_wall_ms=finished_wall_ms,
        history=tuple(failure.history),
    )


@dataclass(frozen=True, slots=True)
class _OwnFailure:
    """A failure that the executor did not see, in the executor's form."""

    position: int
    outcome: Outcome
    error_type: str
    message: str
    fingerprint: str
    attempts: int
    traceback: str = ""
    run_ns: int = 0
    history: tuple[str, ...] = ()


def fail_all(work: BatchWork, error_type: str, message: str, clock: Clock) -> Settlement:
    """Every item that is left fails for the same reason, without having been run."""
    lease = work.lease
    positions = [p for p in range(lease.items) if not bits.is_set(lease.done_bits, p)]
    arguments = arguments_of(work)
    records = [
        FailureRecord(
            index=lease.first_index + position,
            outcome=Outcome.FAILED,
            error_type=error_type,
            message=message[:_MAX_MESSAGE],
            fingerprint=_fingerprint(error_type, message),
            attempts=0,
            arguments=arguments[position] if position < len(arguments) else b"",
            finished_wall_ms=clock.wall_ms(),
        )
        for position in positions
    ]
    return Settlement(
        settled=len(positions),
        bits=bits.of(positions, lease.items) if lease.done_bits else b"",
        outcomes={Outcome.FAILED: len(positions)},
        failures=encode_failures(records),
        errors={error_type: len(positions)},
        stats={},
    )


def crash_fingerprint(task: str) -> str:
    """One for all crashes of a task: the supervisor stores the trace, whoever holds the batch next the dead letter."""
    return _fingerprint(CRASHED_TYPE, task)


def _fingerprint(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(errors="replace"), digest_size=8).hexdigest()


def _unstorable(index: int, position: int, reason: str) -> _OwnFailure:
    return _OwnFailure(
        position=position,
        outcome=Outcome.FAILED,
        error_type="PayloadError",
        message=f"item {index} was run, and its result was lost: {reason}",
        fingerprint=_fingerprint("PayloadError", "result"),
        attempts=1,
    )


def _given_up(work: BatchWork, position: int) -> _OwnFailure:
    lease = work.lease
    crashes = crash_count(lease.crashes[position])
    other = lease.attempts[position] if position < len(lease.attempts) else 0
    return _OwnFailure(
        position=position,
        outcome=Outcome.CRASHED,
        error_type=CRASHED_TYPE,
        message=f"its process died {crashes} times while the item was running; it is not run again",
        fingerprint=crash_fingerprint(lease.task),
        attempts=crashes + other,
    )


def arguments_of(work: BatchWork) -> list[bytes]:
    """The items as the producer sent them; none when they cannot be told apart."""
    try:
        return split_items(work.lease.payload)
    except PayloadError:
        return []


def _positions(work: BatchWork, settled: Settled) -> int | Sequence[int]:
    first = work.lease.first_index
    if settled.ok_first >= 0:
        return first + settled.ok_first
    return [first + position for position in settled.ok_positions or ()]


def _batch_positions(settled: Settled) -> Sequence[int]:
    if settled.ok_first >= 0:
        return range(settled.ok_first, settled.ok_first + len(settled.ok_values))
    return settled.ok_positions or ()


def _bits(work: BatchWork, settled: Settled) -> bytes:
    """Empty when this commit settles the whole batch, and otherwise never empty unless nothing was settled."""
    if settled.bits or not settled.count or not work.skip:
        return settled.bits
    return bits.missing(work.skip, work.lease.items)


def _stats(work: BatchWork, settled: Settled) -> dict[str, int]:
    """The executor's fields, and once for a lease the time for which its items were ready in the ledger."""
    stats = settled.stats
    if not work.ready_counted:
        work.ready_counted = True
        ready_ns = max(0, work.lease.ready_ms) * 1_000_000
        items = work.left
        stats[f"ready:{coarse_index(ready_ns)}"] = items
        stats["ready_count"] = items
        stats["ready_sum_ns"] = items * ready_ns
        stats["ready_min_ns"] = stats["ready_max_ns"] = ready_ns
    return stats


def _part(work: BatchWork, positions: list[int], values: list[msgspec.Raw]) -> Settlement:
    first = work.lease.first_index
    return Settlement(
        settled=len(positions),
        bits=bits.of(positions, work.lease.items),
        outcomes={Outcome.SUCCEEDED: len(positions)},
        results=encode_results([first + position for position in positions], values),
    )


def _with(settlement: Settlement, settled: int, bitmap: bytes) -> Settlement:
    values = {name: getattr(settlement, name) for name in settlement.__dataclass_fields__}
    values.update(settled=settled, bits=bitmap)
    return Settlement(**values)


class _Remembered:
    """A set that forgets the oldest; any thread may use it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._keys

    def add(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._keys[key] = None
            self._keys.move_to_end(key)
            if len(self._keys) > self._size:
                self._keys.popitem(last=False)
