"""Between the scripts' arrays and the port's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tidegate.ledger.port import Lease, Nothing, Settlement, Token
from tidegate.model.job import JobSpec, Origin, Progress
from tidegate.model.outcome import JobState, Outcome

OUTCOMES = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CANCELLED, Outcome.CRASHED)

_encoder = msgspec.msgpack.Encoder()
_spec_decoder = msgspec.msgpack.Decoder(JobSpec)
_NOTHING = {word.value.encode(): word for word in Nothing}


def encode_spec(spec: JobSpec) -> tuple[bytes, bytes]:
    """The spec, and the part of it that has to be the same when the job is opened again."""
    same = msgspec.structs.replace(spec, origin=Origin())
    return _encoder.encode(spec), _encoder.encode(same)


def encode_settlement(s: Settlement) -> bytes:
    """The part of a settlement that is numbers and short texts."""
    get = s.outcomes.get
    return _encoder.encode(
        (
            s.settled,
            s.executions,
            s.retries,
            [get(outcome, 0) for outcome in OUTCOMES],
            s.hand_back,
            s.delay_ms,
            s.errors,
            s.traces,
        )
    )


def encode_stats(stats: Mapping[str, int]) -> bytes:
    """The histogram fields of a settlement; nothing when there are none."""
    return _encoder.encode(stats) if stats else b""


def add_stats(folded: Mapping[bytes, bytes], recent: Sequence[bytes]) -> dict[str, int]:
    """The fields of a job's histograms: those in ``stats`` and those of the last commits, not added yet."""
    total = {field.decode("utf-8", "replace"): int(value) for field, value in folded.items()}
    for packed in recent:
        for field, value in _counts(packed).items():
            if field not in total:
                total[field] = value
            elif field.endswith("_min_ns"):
                total[field] = min(total[field], value)
            elif field.endswith("_max_ns"):
                total[field] = max(total[field], value)
            else:
                total[field] += value
    return total


def _counts(packed: bytes) -> dict[str, int]:
    """The fields that are counts; what is not is left out, as in ``include/settlement.lua``."""
    try:
        fields = msgspec.msgpack.decode(packed)
    except msgspec.DecodeError:
        return {}
    if not isinstance(fields, dict):
        return {}
    return {
        str(field): int(value)
        for field, value in fields.items()
        if type(value) in (int, float) and 0 <= value < 1 << 53 and value == int(value)
    }


def lease_from(reply: Any, job_id: str, claimer: str, nonce: str) -> Lease:
    """A lease as ``include/grant.lua`` describes it."""
    batch, epoch, items, first, payload, bits, attempts, crashes, ready_ms, task, cancel = reply
    return Lease(
        job_id=job_id,
        batch=batch,
        token=Token(epoch, nonce),
        claimer=claimer,
        items=items,
        first_index=first,
        payload=payload,
        done_bits=bits,
        attempts=attempts,
        crashes=crashes,
        ready_ms=ready_ms,
        task=task.decode(),
        cancel_requested=bool(cancel),
    )


def next_from(reply: Any, job_id: str, claimer: str, nonce: str) -> Lease | Nothing | None:
    """What a commit claimed."""
    if isinstance(reply, bytes):
        return _NOTHING[reply] if reply else None
    return lease_from(reply, job_id, claimer, nonce)


def nothing_from(word: bytes) -> Nothing:
    return _NOTHING[word]


def progress_from(job_id: str, reply: Any) -> tuple[Progress, int] | None:
    """How a job stands, and the number of its last event; ``None`` when there is no such job."""
    flat = reply[0]
    if not flat:
        return None
    meta: Mapping[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=True))
    ready, delayed, leased, now, waited = reply[1:]

    def number(field: bytes) -> int:
        return int(float(meta.get(field, b"0")))

    state = JobState(meta[b"state"].decode())
    if meta.get(b"parked") == b"1" and state in (JobState.OPEN, JobState.SEALED):
        state = JobState.PARKED
    batches, batches_done = number(b"batches"), number(b"batches_done")
    progress = Progress(
        job_id=job_id,
        task=meta[b"task"].decode(),
        queue=meta[b"queue"].decode(),
        state=state,
        paused=meta.get(b"paused") == b"1",
        cancelling=meta.get(b"cancel") == b"1" and state not in (JobState.CANCELLED, JobState.DONE),
        cut_short=meta.get(b"cut") == b"1",
        reason=meta.get(b"reason", b"").decode("utf-8", "replace"),
        total=number(b"total"),
        pending=number(b"pending"),
        running_batches=leased,
        ready_batches=ready,
        delayed_batches=delayed,
        oldest_ready_ms=waited,
        pending_bytes=number(b"pending_bytes"),
        outcomes={outcome: number(outcome.value.encode()) for outcome in OUTCOMES},
        attempts=number(b"attempts"),
        retries=number(b"retries"),
        batches=batches,
        batches_done=batches_done,
        lost_leases=number(b"lost_leases"),
        stale_refused=number(b"stale_refused"),
        created_ms=number(b"created_ms"),
        started_ms=number(b"started_ms"),
        finished_ms=number(b"finished_ms"),
        now_ms=now,
        spec=_spec_decoder.decode(meta[b"spec"]),
    )
    return progress, number(b"event_seq")
