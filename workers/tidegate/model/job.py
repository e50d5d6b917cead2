"""What a job is when it is submitted, and how it stands later."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import msgspec

from tidegate.model.outcome import JobState, Outcome


def new_job_id() -> str:
    """A job id that nobody can guess: 128 random bits, 26 letters and digits (Crockford's base 32, lower case)."""
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    number = secrets.randbits(130)
    return "".join(alphabet[(number >> shift) & 31] for shift in range(125, -1, -5))


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """Where a job was enqueued: the line in the app, and the job whose item did it, if any."""

    file: str = ""
    line: int = 0
    function: str = ""
    parent_job: str = ""


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One submission. ``job_id`` is also the submission id: opening the same one again changes nothing.

    ``shape``: how an item is applied (``model.wire.Shape``), for replays. ``batch_size``, ``chunk_batches``, ``chunk_bytes``:
    how the items are split when the submission can be resumed by its id; 0 when the split adapts and cannot be repeated.
    ``silent_s``: a producer that is silent for longer counts as dead, and the job ends with what it has; 0: never.
    ``signature``: see ``model.signing``.
    """

    job_id: str
    task: str
    queue: str = "tidegate"
    origin: Origin = Origin()
    ttl_s: float = 86400.0
    keep_results: bool = True
    concurrency: int = 0
    timeout_s: float = 0.0
    attempts: int = 1
    limits: tuple[str, ...] = ()
    max_crashes: int = 3
    max_pending_bytes: int = 64 << 20
    max_pending_batches: int = 4096
    replay_of: str = ""
    shape: int = 0
    batch_size: int = 0
    chunk_batches: int = 0
    chunk_bytes: int = 0
    silent_s: float = 0.0
    signature: str = ""


@dataclass(frozen=True, slots=True)
class BatchPayload:
    """One batch on its way into the ledger."""

    items: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a job stands, exactly, by the ledger. Items: ``total = sum(outcomes) + pending``.

    ``cancelling``: a cancellation was asked for; the state becomes ``cancelled`` when the last running batch is settled.
    ``cut_short``: its producer fell silent before it said that all items are there; those that are there end as usual.
    ``oldest_ready_ms``: how long the batch at the head of the line has waited for a worker.
    """

    job_id: str
    task: str
    queue: str
    state: JobState
    paused: bool = False
    cancelling: bool = False
    reason: str = ""
    cut_short: bool = False
    total: int = 0
    pending: int = 0
    running_batches: int = 0
    ready_batches: int = 0
    delayed_batches: int = 0
    oldest_ready_ms: int = 0
    pending_bytes: int = 0
    outcomes: dict[Outcome, int] = field(default_factory=dict)
    attempts: int = 0
    retries: int = 0
    batches: int = 0
    batches_done: int = 0
    lost_leases: int = 0
    stale_refused: int = 0
    created_ms: int = 0
    started_ms: int = 0
    finished_ms: int = 0
    now_ms: int = 0
    spec: JobSpec | None = None

    @property
    def done(self) -> int:
        """Items with an outcome."""
        return sum(self.outcomes.values())

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the job by itself."""
        return self.state in (JobState.DONE, JobState.CANCELLED)
