"""A submission whose producer is slow, dies or runs again: whole or marked as cut short, and it always ends."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from submission_model import RIGHT, Request, Rules, State, Step, execute, explore, steps

from tidegate.errors import JobEnded, JobNotFound
from tidegate.ledger import keys
from tidegate.ledger.audit import audit
from tidegate.ledger.port import Lease, Settlement
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import BatchPayload, JobSpec, new_job_id
from tidegate.model.outcome import Outcome

NOW = 1_800_000_000_000
SILENT_S = 60.0


def test_every_order_of_steps_keeps_the_invariants_and_can_end():
    states, wrong = explore(faults=4)
    assert wrong == []
    assert states > 1_000, "the model was explored"


@pytest.mark.parametrize("rule", Rules._fields)
def test_without_any_one_rule_some_order_breaks(rule: str):
    assert explore(faults=3, rules=RIGHT._replace(**{rule: False}))[1]


class _Real:
    """The same job at a real server, whose clock moves by hand."""

    def __init__(self, url: str) -> None:
        self.ledger = RedisLedger.from_url(url, skew_ms=NOW)
        self.client = self.ledger.client
        self.client.flushall()
        self.job_id = new_job_id()
        self.requests = 0

    def take(self, before: State, step: Step) -> None:
        if step.name in ("executes", "executes, reply lost", "executes, then dies", "arrives late"):
            assert step.what is not None
            assert self.send(step.what) == execute(before.job, step.what)[1], step
        elif step.name == "cut short":
            self.ledger._caller.skew_ms += 61_000
            self.ledger.sweep(self.job_id, slots=4, stall_ms=10**9)
        elif step.name == "settles":
            self.settle()

    def send(self, request: Request) -> str:
        try:
            if request.name == "open":
                opened = self.ledger.open(JobSpec(job_id=self.job_id, task="t", silent_s=SILENT_S))
                return "sealed" if opened.sealed else "ok"
            if request.name == "append":
                self.ledger.append(self.job_id, request.number, [BatchPayload(1, b"chunk %d" % request.number)])
            else:
                self.ledger.seal(self.job_id, request.number)
        except JobEnded as error:
            return "cut" if "cut short" in str(error) else "sealed"
        except JobNotFound:
            return "gone"
        return "ok"

    def settle(self) -> None:
        ticket = int(self.client.zrange(keys.job_key(self.job_id, "tickets"), 0, 0)[0])
        self.requests += 1
        lease = self.ledger.claim(
            self.job_id, ticket=ticket, claimer="w", nonce=f"c{self.requests}", lease_ms=10_000_000
        )
        assert isinstance(lease, Lease)
        done = Settlement(settled=1, outcomes={Outcome.SUCCEEDED: 1}, executions=1)
        self.ledger.commit(lease, done, nonce=f"d{self.requests}", lease_ms=10_000_000)

    def look(self) -> tuple[Any, ...]:
        try:
            stands = self.ledger.progress(self.job_id)
        except JobNotFound:
            return ("none", False, 0, 0)
        assert audit(self.client, self.job_id) == []
        return (stands.state.value, stands.cut_short, stands.total, stands.done)


def test_the_scripts_follow_the_model(ledger_url: str):
    real_steps: set[str] = set()
    for seed in range(150):
        random, real, state = Random(seed), _Real(ledger_url), State(faults=5)
        try:
            for _ in range(25):
                choices = [choice for choice in steps(state) if choice[0].name != "goes back in time"]
                if not choices:
                    break
                step, after = random.choice(choices)
                real.take(state, step)
                assert real.look() == tuple(after.job), (seed, step)
                real_steps.add(step.name)
                state = after
        finally:
            real.ledger.close()
    assert real_steps >= {"executes", "cut short", "settles", "arrives late", "runs again", "executes, then dies"}
