"""Is a job that is not there lost, or was it never there? And is the server still the one whose data we saw?"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from typing import Any

import redis

from tidegate.errors import JobEnded, JobNotFound, LedgerError, LedgerLost, SubmissionConflict
from tidegate.ledger import keys
from tidegate.ledger.calls import Caller, malformed

_KNOWN_JOBS = 10_000


class Presence:
    """Remembers the server's incarnation and the jobs seen there, at most 10,000."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._incarnation: bytes | None = None
        self._known: OrderedDict[str, float] = OrderedDict()  # job → when it may be gone (monotonic s)

    def incarnation(self) -> str:
        """The id of the server's data: written once, so a server that came back empty has another one.

        ``LedgerLost`` when it is not the one that was seen first.
        """

        def send(client: redis.Redis) -> Any:
            client.set(keys.INCARNATION, secrets.token_hex(16), nx=True)
            return client.get(keys.INCARNATION)

        now = self._caller.command("incarnation", send)
        if self._incarnation is None:
            self._incarnation = now
        elif now != self._incarnation:
            self._incarnation = now
            self._known.clear()
            raise LedgerLost(
                f"the server at {self._caller.where} came back without its data",
                remedy="restore it, or submit again under the same ids; check that appendonly is on",
            )
        return str(now, "ascii")

    def knows(self, job_id: str, ttl_s: float) -> None:
        """The job is there: if it is missing before its time to live is over, the server lost it."""
        self._known[job_id] = time.monotonic() + ttl_s
        self._known.move_to_end(job_id)
        while len(self._known) > _KNOWN_JOBS:
            self._known.popitem(last=False)

    def missing(self, job_id: str) -> LedgerError:
        """Why a job is not there: the server lost its data, or it never was or expired."""
        try:
            self.incarnation()
        except LedgerLost as lost:
            return lost
        if self._known.pop(job_id, 0.0) > time.monotonic():
            return LedgerLost(
                f"job {job_id} was there and is gone before its time: the server lost data",
                remedy="submit it again under the same id; check that appendonly is on",
                job_id=job_id,
            )
        return JobNotFound(
            f"no job {job_id}", remedy="see `tidegate jobs`; ended jobs are kept for their ttl_s", job_id=job_id
        )

    def demand_not_lost(self, job_id: str) -> None:
        """``LedgerLost`` if the job is missing because the server lost it."""
        error = self.missing(job_id)
        if isinstance(error, LedgerLost):
            raise error

    def demand(self, job_id: str, reply: Any, name: str) -> None:
        """Turn a script's refusal into an error."""
        match reply[0]:
            case b"OK":
                return
            case b"GONE":
                raise self.missing(job_id)
            case b"GAP":
                raise SubmissionConflict(
                    f"{name} of job {job_id}: the ledger expects chunk {reply[1]} next",
                    remedy="open the job again: its answer says where to go on",
                    next_chunk=reply[1],
                )
            case b"CONFLICT":
                raise SubmissionConflict(
                    f"{name} of job {job_id}: this chunk was written with other content",
                    remedy="two producers share this submission id; give each its own",
                )
            case b"ENDED":
                raise JobEnded(f"job {job_id} is {reply[1].decode()}", remedy="submit under a new id")
            case _:
                raise malformed(name, reply)
