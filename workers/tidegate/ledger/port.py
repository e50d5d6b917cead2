"""What a ledger does. One change is one atomic call; every call may be repeated and changes nothing the second time.

Words: a *lease* is the time-limited right to run a batch; its *token* (epoch, nonce) is the proof. A call that carries a
token which is no longer the current one is refused with :class:`Refused` and writes nothing. ``nonce`` arguments are fresh
random strings, one per request and the same when the request is sent again. ``claimer`` names one slot of one worker
process; it has at most one request under way. Times are durations: only the server's clock is compared.

A ticket is a number that the ledger gives out; the caller sends it as a Celery message. Calls that can create work return
``tickets``: the numbers that the caller has to send now. Losing or repeating them changes no outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from tidegate.model.job import BatchPayload, JobSpec, Progress
from tidegate.model.outcome import FailureRecord, Outcome


@dataclass(frozen=True, slots=True)
class Token:
    """Proof of holding a lease: who holds an older one is refused."""

    epoch: int
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to run one batch until ``lease_ms`` after it was granted or last renewed.

    ``done_bits``: bit ``i`` (byte ``i // 8``, bit ``i % 8`` from the least) is set when item ``i`` of the batch was settled
    by an earlier holder; empty when none was. ``attempts``: executions used up so far, a byte per item; empty when none.
    ``crashes``: the same for crashes. ``first_index``: index in the job of the batch's first item. ``ready_ms``: how long
    the batch had been ready when it was granted.
    """

    job_id: str
    batch: int
    token: Token
    claimer: str
    items: int
    first_index: int
    payload: bytes
    done_bits: bytes = b""
    attempts: bytes = b""
    crashes: bytes = b""
    ready_ms: int = 0
    task: str = ""
    cancel_requested: bool = False


class Nothing(StrEnum):
    """Why a claim got no batch."""

    EMPTY = "empty"  # nothing ready now; the ticket was retired
    GONE = "gone"  # no such job, or it ended; the ticket was retired
    PAUSED = "paused"  # paused or parked; the ticket was retired
    RETIRED = "retired"  # the ticket is not one of the job's current window


@dataclass(frozen=True, slots=True)
class Refused:
    """The token is stale: somebody else has the batch, or it is settled. Nothing was written."""

    reason: str = "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """``created`` is False when the job was there already with the same content. ``next_chunk``: where to go on.

    ``items``: how many the job has already, so that a producer that was killed knows how many to skip.
    """

    created: bool
    next_chunk: int
    sealed: bool = False
    items: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """``full``: the high-water mark is reached and nothing was written; try again when workers have caught up."""

    full: bool
    next_chunk: int
    pending_batches: int
    pending_bytes: int
    tickets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What one commit reports of a batch.

    ``bits`` marks the items settled by this commit (empty with ``settled == items`` means all of them, none before).
    ``outcomes`` adds up to ``settled``. ``results``, ``failures``: blocks in wire form, or empty. ``traces``: texts by
    fingerprint. ``errors``: count by error type. ``stats``: fields as in ``model.stats``.
    ``hand_back``: give up the lease; what is left becomes ready again, or is delayed by ``delay_ms``;
    ``attempts``/``crashes`` then hold what has been used up per item of the batch.
    A commit that settles the last item ends the lease by itself.
    """

    settled: int
    bits: bytes = b""
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    executions: int = 0
    retries: int = 0
    results: bytes = b""
    failures: bytes = b""
    traces: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    stats: Mapping[str, int] = field(default_factory=dict)
    hand_back: bool = False
    delay_ms: int = 0
    attempts: bytes = b""
    crashes: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """``next``: the batch claimed by the same call, if one was asked for and ready. ``tickets``: to be sent now."""

    next: Lease | Nothing | None = None
    batch_done: bool = False
    job_done: bool = False
    cancel_requested: bool = False
    tickets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep of one job did. ``tickets`` are to be sent now; ``queue`` says where."""

    job_id: str
    queue: str
    expired_leases: int = 0
    due_batches: int = 0
    tickets: tuple[int, ...] = ()
    finished: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a job's results or dead letters. The default is the start."""

    position: str = "0-0"


class Ledger(Protocol):
    """The operations. Errors: ``LedgerUnavailable``, ``LedgerDenied``, ``LedgerFull``, ``LedgerLost``, ``JobNotFound``."""

    # -- producer ----------------------------------------------------------------------------------------------
    def open(self, spec: JobSpec) -> Opened:
        """Create the job, or find it. ``SubmissionConflict`` if that id was opened with another task or options.

        A job that was cut short, because its producer was silent for ``spec.silent_s``, goes on.
        """

    def append(self, job_id: str, chunk: int, batches: Sequence[BatchPayload]) -> Appended:
        """Add chunk number ``chunk`` (0, 1, 2, …). A repeated number writes nothing; a gap is refused.

        ``JobEnded`` if the job is sealed, cut short or cancelled, ``SubmissionConflict`` for a gap or a last chunk of other
        content.
        """

    def feed(self, job_id: str) -> bool:
        """The producer lives, although it appends nothing now. Whether the job is open."""

    def seal(self, job_id: str, chunks: int) -> Progress:
        """Say that all chunks are there. An empty job is done at once."""

    def sync(self, job_id: str, *, timeout_s: float = 10.0) -> Opened:
        """Return when what the job is now is on the server's disk: what it is (``created`` means nothing here).

        ``LedgerUnsuitable`` when the server keeps no append-only file or is older than Redis 7.2.
        """

    def check_durable(self) -> None:
        """``LedgerUnsuitable`` when ``sync`` cannot work on this server."""

    # -- worker ------------------------------------------------------------------------------------------------
    def claim(self, job_id: str, *, ticket: int, claimer: str, nonce: str, lease_ms: int) -> Lease | Nothing:
        """Take the job's next ready batch."""

    def commit(
        self,
        lease: Lease,
        settlement: Settlement,
        *,
        nonce: str,
        lease_ms: int,
        claim_next: bool = False,
        ticket: int = 0,
    ) -> Committed | Refused:
        """Write what happened to items of a leased batch, and claim the next one in the same call if asked to.

        A holder that has committed all that it knows of lets go of the lease, whatever ``batch_done`` says: if the server
        forgot one of its commits, the items left are found by the batch's next holder.
        """

    def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> list[bool | None]:
        """Per lease: True renewed, None renewed and the job wants cancelling, False lost."""

    def done_bits(self, job_id: str, batch: int) -> bytes:
        """Which items of an unfinished batch have an outcome; empty when none has, or the batch is not there."""

    def touch_ticket(self, job_id: str, ticket: int) -> bool:
        """Note that a ticket goes back to the queue's tail. False: it is not current any more, do not send it."""

    def park(self, job_id: str, reason: str) -> None:
        """Stop handing out the job's batches until an operator resumes it, and say why. A job that is gone is no error."""

    def sweep(self, job_id: str, *, slots: int, stall_ms: int, limit: int = 100) -> Swept:
        """Make expired leases and due delayed batches ready, renew a stalled window of tickets. ``slots``: live slots
        of the cluster, which is how many tickets the window may hold."""

    def active_jobs(self, limit: int = 1000) -> list[str]:
        """Jobs that have not ended, oldest sweep first."""

    def expire(self, limit: int = 100) -> int:
        """Forget jobs whose time to live is over; how many."""

    def try_sweep_turn(self, sweeper: str, turn_ms: int) -> bool:
        """Whether this sweeper is the one at work for the next ``turn_ms``."""

    # -- people ------------------------------------------------------------------------------------------------
    def progress(self, job_id: str) -> Progress:
        """How the job stands."""

    def jobs(self, limit: int = 50) -> list[Progress]:
        """The newest jobs first."""

    def stats(self, job_id: str) -> dict[str, int]:
        """The flat fields of the job's histograms."""

    def errors(self, job_id: str) -> dict[str, int]:
        """Failures by error type."""

    def traces(self, job_id: str) -> dict[str, str]:
        """One trace by fingerprint."""

    def read_results(
        self, job_id: str, cursor: Cursor, *, count: int = 16, block_ms: int | None = None
    ) -> tuple[list[bytes], Cursor]:
        """The next result blocks, waiting up to ``block_ms`` for one."""

    def read_failures(self, job_id: str) -> Iterator[FailureRecord]:
        """Every dead letter of the job."""

    def read_outcomes(
        self, job_id: str, results: Cursor, failures: Cursor, *, count: int = 64, block_ms: int | None = None
    ) -> tuple[list[bytes], Cursor, list[FailureRecord], Cursor]:
        """The next result blocks and dead letters, each after its cursor, waiting up to ``block_ms`` for any."""

    def wait_event(self, job_id: str, *, block_ms: int) -> None:
        """Return when the job's state changes, or after ``block_ms``."""

    def cancel(self, job_id: str, reason: str = "") -> Progress:
        """Hand out nothing more; settle what is pending as cancelled; tell the holders of leases."""

    def pause(self, job_id: str) -> Progress:
        """Hand out nothing more until resumed."""

    def resume(self, job_id: str) -> tuple[Progress, tuple[int, ...]]:
        """Undo a pause or a parking; the tickets are to be sent now."""

    # -- workers known to the cluster --------------------------------------------------------------------------
    def heartbeat(self, worker: str, *, slots: int, ttl_ms: int, facts: Mapping[str, str | int | float]) -> int:
        """Register or refresh a worker process; returns the live slots of the cluster."""

    def workers(self) -> list[dict[str, str]]:
        """The live worker processes and their facts."""

    def leave(self, worker: str) -> None:
        """Forget a worker process that ends well."""

    def check(self) -> dict[str, str]:
        """Server facts for ``doctor``; ``LedgerUnsuitable`` when it must not be used (evicting policy, too old)."""

    def close(self) -> None:
        """Close the connections."""
