"""RedisLedger: the ledger on Redis or Valkey. Every change is one script; what the scripts promise is in docs/protocol.md."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Self

import redis

from tidegate.errors import LedgerError, LedgerUnavailable, SubmissionConflict
from tidegate.ledger import health, keys, reading
from tidegate.ledger.calls import Arg, Caller, Interceptor, malformed
from tidegate.ledger.connection import connect, safe_url
from tidegate.ledger.index import WorkerRegistry
from tidegate.ledger.jobreader import JobReader
from tidegate.ledger.port import (
    Appended,
    Committed,
    Lease,
    Nothing,
    Opened,
    Refused,
    Settlement,
    Swept,
)
from tidegate.ledger.replies import (
    encode_settlement,
    encode_spec,
    encode_stats,
    lease_from,
    next_from,
    nothing_from,
)
from tidegate.model.job import BatchPayload, JobSpec, Progress

_CANCEL_PAGE = 200
_SLOTS_AGE_S = 1.0


class RedisLedger(JobReader):
    """The port ``tidegate.ledger.port.Ledger`` on a redis-py client. Safe to share between threads and across a fork.

    ``tries``: how often a request is sent before ``LedgerUnavailable``; the client itself should not retry.
    ``skew_ms`` and ``interceptor`` are for tests: the first shifts the clock that scripts see, the second is called
    around each attempt to send a request and may lose it or its reply.

    >>> ledger = RedisLedger.from_url("redis://127.0.0.1:6379/0")   # nothing is sent yet
    >>> ledger.where
    'redis://127.0.0.1:6379/0'
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        where: str = "",
        tries: int = 4,
        skew_ms: int = 0,
        interceptor: Interceptor | None = None,
    ) -> None:
        self.client = client
        self.where = where or "the configured address"
        super().__init__(Caller(client, where=self.where, tries=tries, skew_ms=skew_ms, interceptor=interceptor))
        self._registry = WorkerRegistry(self._caller)
        self._slots = 0
        self._slots_at = float("-inf")

    @classmethod
    def from_url(cls, url: str, *, tries: int = 4, skew_ms: int = 0, interceptor: Interceptor | None = None) -> Self:
        """A ledger at ``url`` (see ``connection``). Nothing is sent yet."""
        client = connect(url, retries=0)
        return cls(client, where=safe_url(url), tries=tries, skew_ms=skew_ms, interceptor=interceptor)

    def close(self) -> None:
        """Close the connections."""
        self._caller.close()
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- producer ----------------------------------------------------------------------------------------------
    def open(self, spec: JobSpec) -> Opened:
        """See the port."""
        keys.job_key(spec.job_id, "meta")  # refuses a nonsense id before anything is written
        self.incarnation()
        packed, same = encode_spec(spec)
        digest = hashlib.blake2b(same, digest_size=16).hexdigest()
        ttl_ms = max(1, round(spec.ttl_s * 1000))
        self._index.opening(spec.job_id)
        reply = self._caller.job(
            "open",
            spec.job_id,
            *(digest, packed, spec.task, spec.queue, ttl_ms, int(spec.keep_results)),
            *(spec.max_pending_bytes, spec.max_pending_batches, round(spec.silent_s * 1000)),
        )
        if reply[0] == b"CONFLICT":
            raise SubmissionConflict(
                f"job {spec.job_id} was opened with another task or other options",
                remedy="use a new submission id, or the same task and options",
                job_id=spec.job_id,
            )
        self._index.opened(spec.job_id)
        self._presence.knows(spec.job_id, spec.ttl_s)
        return Opened(created=bool(reply[1]), next_chunk=reply[2], sealed=bool(reply[3]), items=reply[4])

    def append(self, job_id: str, chunk: int, batches: Sequence[BatchPayload]) -> Appended:
        """See the port."""
        digest = hashlib.blake2b(digest_size=8)
        flat: list[Arg] = []
        for batch in batches:
            if batch.items < 1:
                raise ValueError("a batch has at least one item")
            digest.update(b"%d:%d:" % (batch.items, len(batch.data)))
            digest.update(batch.data)
            flat += (batch.items, batch.data)
        reply = self._caller.job("append", job_id, chunk, digest.hexdigest(), self._live_slots(), *flat)
        self._presence.demand(job_id, reply, "append")
        full, next_chunk, pending_batches, pending_bytes, tickets = reply[1:]
        return Appended(
            full=bool(full),
            next_chunk=next_chunk,
            pending_batches=pending_batches,
            pending_bytes=pending_bytes,
            tickets=tuple(tickets),
        )

    def feed(self, job_id: str) -> bool:
        """See the port."""
        return bool(self._caller.job("feed", job_id))

    def seal(self, job_id: str, chunks: int) -> Progress:
        """See the port."""
        reply = self._caller.job("seal", job_id, chunks)
        self._presence.demand(job_id, reply, "seal")
        return self._progress_after(job_id, bool(reply[1]))

    def sync(self, job_id: str, *, timeout_s: float = 10.0) -> Opened:
        """See the port."""
        read = reading.sync(self._caller, job_id, timeout_s=timeout_s)
        if read is None:
            raise self._presence.missing(job_id)
        state, next_chunk, items, on_disk = read
        if not on_disk:
            raise LedgerUnavailable(
                f"the server at {self.where} did not write to its disk within {timeout_s:g} s",
                remedy="try again; if it stays so, look at its disk",
            )
        return Opened(created=False, next_chunk=next_chunk, sealed=state != b"open", items=items)

    def check_durable(self) -> None:
        """See the port."""
        health.check_durable(self._caller)

    # -- worker ------------------------------------------------------------------------------------------------
    def claim(self, job_id: str, *, ticket: int, claimer: str, nonce: str, lease_ms: int) -> Lease | Nothing:
        """See the port."""
        _demand_plain(nonce)
        kind, reply = self._caller.job("claim", job_id, claimer, nonce, lease_ms, ticket)
        if kind == b"NO":
            return nothing_from(reply)
        return lease_from(reply, job_id, claimer, nonce)

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
        """See the port."""
        _demand_plain(nonce)
        s, token = settlement, lease.token
        reply = self._caller.job(
            "commit",
            lease.job_id,
            *(lease.claimer, nonce, lease.batch, token.epoch, token.nonce, lease_ms, int(claim_next), ticket),
            *(encode_settlement(s), s.bits, s.results, s.failures, s.attempts, s.crashes),
            encode_stats(s.stats),
        )
        match reply[0]:
            case b"OK":
                _, done, job_done, cancel, tickets, following = reply
            case b"STALE":
                if reply[1] == b"gone":
                    self._presence.demand_not_lost(lease.job_id)
                return Refused(reply[1].decode())
            case b"BAD":
                raise LedgerError(
                    f"commit: {reply[1].decode()}", remedy="this is an error in the program, not in the data"
                )
            case _:
                raise malformed("commit", reply)
        if job_done:
            self._sweep_out(lease.job_id)
        return Committed(
            next=next_from(following, lease.job_id, lease.claimer, nonce) if claim_next else None,
            batch_done=bool(done),
            job_done=bool(job_done),
            cancel_requested=bool(cancel),
            tickets=tuple(tickets),
        )

    def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> list[bool | None]:
        """See the port. One request per job."""
        by_job: dict[str, list[int]] = {}
        for position, lease in enumerate(leases):
            by_job.setdefault(lease.job_id, []).append(position)
        meaning: dict[int, bool | None] = {0: False, 1: True, 2: None}
        found: list[bool | None] = [False] * len(leases)
        for job_id, positions in by_job.items():
            flat: list[Arg] = []
            for position in positions:
                lease = leases[position]
                flat += (lease.batch, lease.token.epoch, lease.token.nonce)
            reply = self._caller.job("renew", job_id, lease_ms, *flat)
            if reply[0] == b"GONE":
                self._presence.demand_not_lost(job_id)
                continue
            for position, number in zip(positions, reply[1:], strict=True):
                found[position] = meaning[number]
        return found

    def done_bits(self, job_id: str, batch: int) -> bytes:
        """See the port."""
        return reading.done_bits(self._caller, job_id, batch)

    def touch_ticket(self, job_id: str, ticket: int) -> bool:
        """See the port."""
        return bool(self._caller.job("touch_ticket", job_id, ticket))

    def park(self, job_id: str, reason: str) -> None:
        """See the port."""
        self._caller.job("hold", job_id, "parked", reason)

    def sweep(self, job_id: str, *, slots: int, stall_ms: int, limit: int = 100) -> Swept:
        """See the port."""
        reply = self._caller.job("sweep", job_id, _nonce(), slots, stall_ms, limit)
        if reply[0] == b"GONE":
            self._index.inactive(job_id)
            return Swept(job_id=job_id, queue="", gone=True)
        queue, expired, due, tickets, ended, ttl_ms = reply[1:]
        if ended:
            self._index.ended(job_id, ttl_ms)
        else:
            self._index.swept(job_id)
        return Swept(
            job_id=job_id,
            queue=queue.decode(),
            expired_leases=expired,
            due_batches=due,
            tickets=tuple(tickets),
            finished=bool(ended),
        )

    def active_jobs(self, limit: int = 1000) -> list[str]:
        """See the port."""
        return self._index.active(limit)

    def expire(self, limit: int = 100) -> int:
        """See the port."""
        return self._index.forget_gone(limit)

    def try_sweep_turn(self, sweeper: str, turn_ms: int) -> bool:
        """See the port."""
        return self._index.take_turn(sweeper, turn_ms)

    # -- people ------------------------------------------------------------------------------------------------
    def cancel(self, job_id: str, reason: str = "") -> Progress:
        """See the port."""
        ended = False
        while True:
            reply = self._caller.job("cancel", job_id, reason, _CANCEL_PAGE)
            self._presence.demand(job_id, reply, "cancel")
            ended = ended or bool(reply[2])
            if not reply[1]:
                return self._progress_after(job_id, ended)

    def pause(self, job_id: str) -> Progress:
        """See the port."""
        self._presence.demand(job_id, self._caller.job("hold", job_id, "paused", ""), "pause")
        return self.progress(job_id)

    def resume(self, job_id: str) -> tuple[Progress, tuple[int, ...]]:
        """See the port."""
        reply = self._caller.job("resume", job_id, _nonce(), self._live_slots())
        self._presence.demand(job_id, reply, "resume")
        return self.progress(job_id), tuple(reply[1])

    # -- workers known to the cluster --------------------------------------------------------------------------
    def heartbeat(self, worker: str, *, slots: int, ttl_ms: int, facts: Mapping[str, str | int | float]) -> int:
        """See the port."""
        self._slots = self._registry.heartbeat(worker, slots, ttl_ms, facts)
        self._slots_at = time.monotonic()
        return self._slots

    def workers(self) -> list[dict[str, str]]:
        """See the port."""
        return self._registry.live()

    def leave(self, worker: str) -> None:
        """See the port."""
        self._registry.leave(worker)

    def check(self) -> dict[str, str]:
        """See the port."""
        return health.check(self._caller)

    def kept_bytes(self, jobs: int = 200) -> tuple[int, int]:
        """Bytes that results and dead letters of the newest jobs take, and bytes that the server may use, 0 if unknown."""
        return health.kept(self._caller, self._index.newest(0, jobs))

    def incarnation(self) -> str:
        """See ``Presence``: ``LedgerLost`` when the server came back without its data."""
        return self._presence.incarnation()

    # -- inside ------------------------------------------------------------------------------------------------
    def _progress_after(self, job_id: str, ended: bool) -> Progress:
        if ended:
            self._sweep_out(job_id)
        return self.progress(job_id)

    def _sweep_out(self, job_id: str) -> None:
        """A job ended: it is in the index of those to expire, not of those to sweep."""
        reply = self._caller.job("sweep", job_id, _nonce(), 0, 0, 0)
        if reply[0] == b"OK" and reply[5]:
            self._index.ended(job_id, reply[6])

    def _live_slots(self) -> int:
        """Slots of the cluster, at most a second old; 0 when no worker has said so yet."""
        if time.monotonic() - self._slots_at > _SLOTS_AGE_S:
            self._slots = self._registry.live_slots()
            self._slots_at = time.monotonic()
        return self._slots


def _demand_plain(nonce: str) -> None:
    if not nonce.isalnum():
        raise ValueError(f"nonce {nonce!r}: use letters and digits")


def _nonce() -> str:
    return secrets.token_hex(8)
