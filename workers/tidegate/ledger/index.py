"""What is known across jobs: which there are, which have not ended, who sweeps, which workers live.

These keys are not in a job's hash slot, so they are written before and after a job's scripts, never with them. Every
order of those writes heals: a job is in ``expiring`` before it exists and until it is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import redis

from tidegate.ledger import keys
from tidegate.ledger.calls import Caller

#: A job that was announced and then not opened is taken out of the index after so long.
_FIRST_LOOK_MS = 3_600_000


class JobIndex:
    """The index of jobs. Scores are the server's milliseconds."""

    _KEYS = (keys.EXPIRING, keys.JOBS, keys.ACTIVE)

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def opening(self, job_id: str) -> None:
        """Note a job before it exists, so that nothing of it can be left behind."""
        self._caller.script("announce", self._KEYS, self._caller.skew_ms, job_id, _FIRST_LOOK_MS)

    def opened(self, job_id: str) -> None:
        """Put the job back among the active ones if a sweeper found it missing just before it was created."""
        self._note(job_id, "opened")

    def ended(self, job_id: str, ttl_ms: int) -> None:
        """Look at the job again when its time to live is over; sweep it no more."""
        self._note(job_id, "ended", ttl_ms)

    def swept(self, job_id: str) -> None:
        self._note(job_id, "swept")

    def inactive(self, job_id: str) -> None:
        self._note(job_id, "inactive")

    def active(self, limit: int) -> list[str]:
        return self._ids(lambda client: client.zrange(keys.ACTIVE, 0, limit - 1))

    def newest(self, start: int, count: int) -> list[str]:
        return self._ids(lambda client: client.zrevrange(keys.JOBS, start, start + count - 1))

    def forget_gone(self, limit: int) -> int:
        """Take jobs that are gone out of the index, and remove what may be left of them."""
        skew_ms = self._caller.skew_ms
        due = self._caller.command(
            "expire",
            lambda c: c.zrangebyscore(keys.EXPIRING, "-inf", _now(c, skew_ms), start=0, num=limit, withscores=True),
        )
        gone = 0
        for name, score in due:
            job_id = name.decode()
            ttl_ms = int(self._caller.job("remains", job_id))
            if ttl_ms < 0:
                gone += int(self._caller.script("forget", self._KEYS, job_id, repr(score)))
            else:
                self._note(job_id, "look", ttl_ms)
        return gone

    def take_turn(self, sweeper: str, turn_ms: int) -> bool:
        return bool(self._caller.script("sweep_turn", (keys.TURN,), sweeper, max(1, turn_ms)))

    def _note(self, job_id: str, what: str, in_ms: int = 0) -> None:
        self._caller.script("index", self._KEYS, self._caller.skew_ms, job_id, what, max(0, in_ms) + 1)

    def _ids(self, send: Any) -> list[str]:
        return [name.decode() for name in self._caller.command("index", send)]


class WorkerRegistry:
    """The worker processes that said lately that they live."""

    _KEYS = (keys.WORKERS, keys.SLOTS, keys.FACTS)

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def heartbeat(self, worker: str, slots: int, ttl_ms: int, facts: Mapping[str, str | int | float]) -> int:
        packed = msgspec.msgpack.encode({**facts, "worker": worker, "slots": slots})
        return int(self._caller.script("heartbeat", self._KEYS, self._caller.skew_ms, worker, slots, ttl_ms, packed))

    def leave(self, worker: str) -> None:
        self._caller.script("heartbeat", self._KEYS, self._caller.skew_ms, worker, -1, 0, b"")

    def live(self) -> list[dict[str, str]]:
        def send(client: redis.Redis) -> list[Any]:
            names: Any = client.zrangebyscore(keys.WORKERS, _now(client, self._caller.skew_ms), "+inf")
            found: Any = client.hmget(keys.FACTS, names) if names else []
            return list(found)

        packed = self._caller.command("workers", send)
        facts = [msgspec.msgpack.decode(one, type=dict[str, Any]) for one in packed if one]
        return [{key: str(value) for key, value in one.items()} for one in facts]

    def live_slots(self) -> int:
        """Slots of the cluster as last added up; 0 when no worker was ever seen."""
        return int(self._caller.command("slots", lambda client: client.hget(keys.SLOTS, "")) or 0)


def _now(client: redis.Redis, skew_ms: int) -> int:
    if skew_ms > 1e12:  # as in scripts/include/clock.lua
        return skew_ms
    now: Any = client.time()
    seconds, micros = now
    return int(seconds) * 1000 + int(micros) // 1000 + skew_ms
