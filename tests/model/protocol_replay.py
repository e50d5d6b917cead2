"""Replays a history of the model against the real scripts on a real server, and compares state and reply at every step."""

from __future__ import annotations

from typing import Any

import msgspec
from protocol_model import SLOTS, Lease, Reply, Request, Server, State, Step, claim, commit

from tidegate.ledger import keys
from tidegate.ledger import port as real
from tidegate.ledger.audit import audit, dump
from tidegate.ledger.port import Committed, Nothing, Refused, Settlement, Token
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import BatchPayload, JobSpec, new_job_id
from tidegate.model.outcome import Outcome

NOW = 1_800_000_000_000
LEASE_MS = 10_000
LONG_MS = 100_000_000
SERVER_STEPS = ("executes", "executes, reply lost", "arrives late")


class Divergence(AssertionError):
    """The scripts do what the model does not."""


class Replay:
    """One job at a real server whose scripts' clock stands still."""

    def __init__(self, url: str, sizes: tuple[int, ...]) -> None:
        self.ledger = RedisLedger.from_url(url, skew_ms=NOW)
        self.client = self.ledger.client
        self.client.flushall()
        self.sizes = sizes
        self.job_id = new_job_id()
        self.saved: dict[bytes, tuple[int, bytes]] = {}
        self.ledger.heartbeat("w", slots=SLOTS, ttl_ms=LONG_MS, facts={})
        self.ledger.open(JobSpec(job_id=self.job_id, task="t"))
        appended = self.ledger.append(self.job_id, 0, [BatchPayload(size, b"p") for size in sizes])
        self.ledger.seal(self.job_id, 1)
        self.first_tickets = appended.tickets

    def close(self) -> None:
        self.ledger.close()

    def follow(self, path: list[tuple[State, Step, State]]) -> None:
        """Take every step; ``Divergence`` says where the two part."""
        goes_back = any(step.name == "goes back in time" for _, step, _ in path)
        self.compare(path[0][0].server, "start")
        for number, (before, step, after) in enumerate(path):
            at = f"step {number} {step}"
            if goes_back and before.server != after.server and step.name != "goes back in time":
                self.saved = {
                    key: (max(0, self.client.pttl(key)), self.client.dump(key)) for key in self.client.keys("*")
                }
            self.take(before, step, after, at)
            self.compare(after.server, at)

    def take(self, before: State, step: Step, after: State, at: str) -> None:
        if step.name in SERVER_STEPS:
            self.request(before.server, step.what, at)
        elif step.name == "puts back":
            _number, ticket = step.what
            self.same(self.ledger.touch_ticket(self.job_id, ticket), ticket in before.server.window, at)
        elif step.name == "expires":
            self.client.zadd(keys.job_key(self.job_id, "leases"), {str(step.what.batch): 1}, xx=True)
            self.sweep(before.server, after.server, at)
        elif step.name == "gives up ticket":
            self.client.zadd(keys.job_key(self.job_id, "tickets"), {str(step.what): 1}, xx=True)
            self.sweep(before.server, after.server, at)
        elif step.name == "widens":
            self.sweep(before.server, after.server, at)
        elif step.name == "is cancelled":
            self.ledger.cancel(self.job_id)
        elif step.name == "goes back in time":
            self.client.flushall()
            for key, (ttl_ms, value) in self.saved.items():
                self.client.restore(key, ttl_ms, value)

    def sweep(self, before: Server, after: Server, at: str) -> None:
        swept = self.ledger.sweep(self.job_id, slots=SLOTS, stall_ms=LONG_MS)
        self.same(swept.tickets, tuple(range(before.last_ticket + 1, after.last_ticket + 1)), at)

    def request(self, server: Server, request: Request, at: str) -> None:
        if request.lease is None:
            answer: Any = self.ledger.claim(
                self.job_id,
                ticket=request.ticket,
                claimer=_claimer(request),
                nonce=_nonce(request.nonce),
                lease_ms=LEASE_MS,
            )
            self.same(self.seen(answer, ()), claim(server, request)[1], at)
            return
        lease = self.real_lease(request)
        items = [lease.first_index + i for i in range(lease.items) if request.bits >> i & 1]
        settlement = Settlement(
            settled=len(items), bits=bytes([request.bits]) if items else b"", outcomes={Outcome.SUCCEEDED: len(items)},
            executions=len(items), results=msgspec.msgpack.encode(items), hand_back=request.hand_back,
        )  # fmt: skip
        answer = self.ledger.commit(
            lease,
            settlement,
            nonce=_nonce(request.nonce),
            lease_ms=LEASE_MS,
            claim_next=request.last,
            ticket=request.ticket,
        )
        expected = commit(server, request)[1]
        if isinstance(answer, Refused):
            self.same("stale", expected[0], at)
        else:
            self.same(self.seen(answer.next, answer.tickets), expected, at)

    def real_lease(self, request: Request) -> real.Lease:
        lease = request.lease
        assert lease is not None
        return real.Lease(
            job_id=self.job_id, batch=lease.batch, token=Token(lease.epoch, _nonce(lease.nonce)), payload=b"p",
            claimer=_claimer(request), items=self.sizes[lease.batch], first_index=sum(self.sizes[: lease.batch]),
        )  # fmt: skip

    def seen(self, answer: real.Lease | Nothing | Committed | None, tickets: tuple[int, ...]) -> Reply:
        """A reply as the model would give it."""
        if isinstance(answer, real.Lease):
            lease = Lease(answer.batch, answer.token.epoch, int(answer.token.nonce[1:]))
            return "ok", (lease, int.from_bytes(answer.done_bits, "little")), tickets
        return answer.value if isinstance(answer, Nothing) else "", None, tickets

    def compare(self, server: Server, at: str) -> None:
        """The whole state of the job, and a recount of it."""
        found = dump(self.client, self.job_id)
        meta = {name.decode(): value for name, value in found["meta"].items()}
        number = {name: int(meta.get(name, 0)) for name in ("succeeded", "cancelled", "epoch", "ticket_seq", "cancel")}
        leases = [
            Lease(int(batch), int(value.split(b":")[0]), int(value.split(b":")[1][1:]))
            for batch, value in found.get("lease", {}).items()
        ]
        bits = {int(batch): int.from_bytes(value, "little") for batch, value in found.get("bits", {}).items()}
        pending = {*server.ready, *(lease.batch for lease in server.leases)}
        pairs = {
            "ready": (tuple(int(record.split(b":")[0]) for record in found.get("ready", [])), server.ready),
            "leases": (tuple(sorted(leases)), server.leases),
            "bits": (bits, {batch: server.settled[batch] for batch in pending if server.settled[batch]}),
            "window": (sorted(int(ticket) for ticket, _ in found.get("tickets", [])), sorted(server.window)),
            "epoch": (number["epoch"], server.epoch),
            "tickets given out": (number["ticket_seq"], server.last_ticket),
            "settled": (number["succeeded"], sum(mask.bit_count() for mask in server.settled)),
            "cancelled": (number["cancelled"], sum(mask.bit_count() for mask in server.cancelled)),
            "cancel": (bool(number["cancel"]), server.cancel),
            "ended": (meta["state"] in (b"done", b"cancelled"), server.ended),
            "recount": (audit(self.client, self.job_id), []),
        }
        for what, (scripts, model) in pairs.items():
            self.same(scripts, model, f"{at}: {what}")

    def same(self, scripts: Any, model: Any, at: str) -> None:
        if scripts != model:
            raise Divergence(f"{at}: the scripts say {scripts!r}, the model {model!r}")


def _claimer(request: Request) -> str:
    return f"w{request.worker}"


def _nonce(number: int) -> str:
    return f"n{number}"
