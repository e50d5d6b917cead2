"""Recount a job from its keys and compare with its counters: what the invariants say, checked on real data.

For tests, for ``tidegate doctor`` and for whoever doubts. It reads everything in one transaction, so it may run beside
live workers; it is not meant for jobs with very many pending batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from tidegate.ledger import keys

_OUTCOMES = (b"succeeded", b"failed", b"timed_out", b"cancelled", b"crashed")
_PAGE = 1_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch is, and its record."""

    where: str
    batch: int
    items: int
    first: int
    size: int
    left: int
    flags: int

    @classmethod
    def of(cls, where: str, record: bytes) -> Place:
        batch, items, first, size, left, flags, _ = (int(part) for part in record.split(b":"))
        return cls(where, batch, items, first, size, left, flags)


def dump(client: redis.Redis, job_id: str) -> dict[str, Any]:
    """Everything that the ledger holds of a job, by key name; keys that do not exist are left out."""
    names = keys.JOB_KEYS
    pipe = client.pipeline(transaction=True)
    for name in names:
        key = keys.job_key(job_id, name)
        match name:
            case "ready" | "recent":
                pipe.lrange(key, 0, -1)
            case "delayed" | "leases" | "tickets":
                pipe.zrange(key, 0, -1, withscores=True)
            case "results" | "dead" | "events":
                pipe.xrange(key, count=_PAGE)
            case _:
                pipe.hgetall(key)
    return {name: value for name, value in zip(names, pipe.execute(), strict=True) if value}


def audit(client: redis.Redis, job_id: str) -> list[str]:
    """What is wrong with a job, a line each; empty when every count agrees. A job that does not exist is right."""
    found = dump(client, job_id)
    meta: dict[bytes, bytes] = found.get("meta", {})
    if not meta:
        return [f"{name} without meta" for name in found]
    places = _places(found)
    return [*_counters(meta, places), *_leases(found), *_contents(found, places), *_ending(meta, found)]


def _places(found: dict[str, Any]) -> list[Place]:
    ready = [Place.of("ready", record) for record in found.get("ready", [])]
    delayed = [Place.of("delayed", record) for record, _ in found.get("delayed", [])]
    leased = [Place.of("lease", b":".join(value.split(b":")[3:10])) for value in found.get("lease", {}).values()]
    return ready + delayed + leased


def _number(meta: dict[bytes, bytes], name: bytes) -> int:
    return int(meta.get(name, b"0"))


def _counters(meta: dict[bytes, bytes], places: list[Place]) -> list[str]:
    outcomes = sum(_number(meta, name) for name in _OUTCOMES)
    batches = [place.batch for place in places]
    expected = {
        "total = outcomes + pending": (_number(meta, b"total"), outcomes + _number(meta, b"pending")),
        "pending = items left in all places": (_number(meta, b"pending"), sum(place.left for place in places)),
        "pending_bytes": (_number(meta, b"pending_bytes"), sum(place.size for place in places)),
        "batches - batches_done": (_number(meta, b"batches") - _number(meta, b"batches_done"), len(places)),
        "each batch in one place": (len(set(batches)), len(batches)),
    }
    wrong = [f"{what}: {left} and {right}" for what, (left, right) in expected.items() if left != right]
    negative = [name.decode() for name in (*_OUTCOMES, b"pending", b"pending_bytes") if _number(meta, name) < 0]
    empty = [place.batch for place in places if not 0 < place.left <= place.items]
    return wrong + [f"{name} is negative" for name in negative] + [f"batch {batch} has nothing left" for batch in empty]


def _leases(found: dict[str, Any]) -> list[str]:
    held = set(found.get("lease", {}))
    deadlines = {batch for batch, _ in found.get("leases", [])}
    epochs = [int(value.split(b":")[0]) for value in found.get("lease", {}).values()]
    latest = _number(found["meta"], b"epoch")
    wrong = (
        [f"lease without deadline, or deadline without lease: {sorted(held ^ deadlines)}"] if held != deadlines else []
    )
    if len(set(epochs)) != len(epochs) or any(epoch > latest for epoch in epochs):
        wrong.append(f"epochs {sorted(epochs)}, last granted {latest}")
    return wrong


def _contents(found: dict[str, Any], places: list[Place]) -> list[str]:
    payloads = {int(batch): len(data) for batch, data in found.get("payloads", {}).items()}
    wrong = []
    if payloads != {place.batch: place.size for place in places}:
        wrong.append(f"payloads of {sorted(payloads)}, batches {sorted(place.batch for place in places)}")
    for flag, name in ((1, "bits"), (2, "attempts"), (4, "crashes")):
        kept = {int(batch): value for batch, value in found.get(name, {}).items()}
        if set(kept) != {place.batch for place in places if place.flags & flag}:
            wrong.append(f"{name} of {sorted(kept)} do not match the records' flags")
        elif name == "bits":
            wrong += [
                f"batch {place.batch}: {int.from_bytes(kept[place.batch]).bit_count()} bits, {place.left} left"
                for place in places
                if place.flags & flag and int.from_bytes(kept[place.batch]).bit_count() != place.items - place.left
            ]
        elif any(len(kept[place.batch]) != place.items for place in places if place.flags & flag):
            wrong.append(f"{name}: not a byte per item")
    wrong += [
        f"batch {p.batch} has no bits for {p.items - p.left} items"
        for p in places
        if p.left < p.items and not p.flags & 1
    ]
    return wrong


def _ending(meta: dict[bytes, bytes], found: dict[str, Any]) -> list[str]:
    state, pending = meta[b"state"], _number(meta, b"pending")
    if state in (b"done", b"cancelled"):
        return [f"{state.decode()} with tickets"] if "tickets" in found else []
    if state == b"sealed" and pending == 0:
        return ["sealed and nothing pending, but not ended"]
    tickets = [int(number) for number, _ in found.get("tickets", [])]
    return ["a ticket that was never given out"] if any(n > _number(meta, b"ticket_seq") for n in tickets) else []
