"""Storms on the Celery queue: tickets deleted, repeated, malformed."""

from __future__ import annotations

import contextlib
import json
import time
from random import Random
from typing import Any

from storm.row import Row, Scale
from storm.scene import Scene, scene, until
from storm.tree import WorkerTree
from tidegate import Job, Tidegate
from tidegate.testing.chaos import witness
from tidegate.testing.chaos.check import Verdict

from storm.chaos_app import register  # isort: skip

QUEUE = "tidegate"
SWEEP_S = 0.5
#: Together their windows hold more tickets than there are slots: the queue is never empty while they run.
JOBS = 4


def tickets(scale: Scale) -> Row:
    """Tickets deleted again and again, those that are left repeated ten times, and rubbish mixed in; and jobs whose tickets
    all get lost, to see how long that holds them up."""
    items, probes = scale.items(400_000, 40_000) // JOBS, scale.faults(20, 3)
    random = Random(scale.seed)
    with scene(scale.folder / "tickets") as stage, stage.server.client() as client:
        with WorkerTree(stage.url, stage.folder, stage.witness, processes=2, settings={"sweep_s": SWEEP_S}) as tree:
            tree.wait_up()
            waited_s = max(_delay_without_tickets(stage) for _ in range(probes))
            jobs = [stage.submit("chaos.note", [2.0] * items, batch_size=50, patience_s=600) for _ in range(JOBS)]
            queue = _Queue(client, random)
            while not all(job.progress().ended for job in jobs):
                time.sleep(0.1)
                queue.disturb()
            verdict = _sum([_settled(stage, job, items) for job in jobs])
            tree.wait_up()
            exits = int(tree.exit_code is not None) + tree.log.read_text(errors="replace").count("replaced in_s=")
    return Row(
        fault="tickets all deleted; each repeated 10 times; malformed ones mixed in",
        load=f"{JOBS * items:,} items",
        verdict=verdict,
        proof={"tickets deleted": queue.deleted, "repeated": queue.repeated, "malformed": queue.malformed},
        shown={"delay without tickets, s": round(waited_s, 2), "sweep, s": SWEEP_S},
        bounds={
            "extra executions": (verdict.executed_again, 0),
            # Two sweeps, and the time to start a small batch.
            "delay without tickets, s": (waited_s, 2 * SWEEP_S + (0.2 if scale.long else 1.0)),
            "worker exits": (exits, 0),
        },
    )


def _delay_without_tickets(stage: Scene) -> float:
    """Seconds from a submission, all of whose tickets go to a queue that nobody reads, until its first item runs."""
    with contextlib.closing(register(Tidegate(stage.url, broker_url=f"{stage.url}?db=1"))) as lost:
        began = time.monotonic_ns()
        job = lost.map("chaos.note", [0.0] * 20, batch_size=10)
        until(lambda: witness.read(stage.witness, job.id).executions, "a sweeper replaced the tickets")
        first_ns = witness.read(stage.witness, job.id).first_ns
        stage.settle(job)
    return (first_ns - began) / 1e9


class _Queue:
    """The queue in a stranger's hands."""

    def __init__(self, client: Any, random: Random) -> None:
        self._client, self._random = client, random
        self.deleted = self.repeated = self.malformed = 0

    def disturb(self) -> None:
        client = self._client
        messages = list(dict.fromkeys(client.lrange(QUEUE, 0, 50)))  # the copies are not copied again
        if messages and self._random.random() < 0.3:
            self.deleted += client.delete(QUEUE) and len(messages)
        for message in messages if client.llen(QUEUE) < 500 else ():
            client.lpush(QUEUE, *([message] * 10))
            self.repeated += 10
        client.lpush(QUEUE, *(rubbish := _rubbish(self._random)))
        self.malformed += len(rubbish)


def _settled(stage: Scene, job: Job[object], items: int) -> Verdict:
    stage.settle(job, patience_s=900)
    return stage.check(job, items)


def _sum(verdicts: list[Verdict]) -> Verdict:
    """Several jobs' verdicts as one."""
    names = [name for name in Verdict.__dataclass_fields__ if name != "ended"]
    totals = {name: sum(getattr(verdict, name) for verdict in verdicts) for name in names}
    return Verdict(**totals, ended=all(verdict.ended for verdict in verdicts))


def _rubbish(random: Random) -> list[bytes]:
    """What a hostile or broken neighbour may push: not JSON, not a message, a pickle, a bomb, a forged task."""
    properties = {
        "delivery_tag": "x",
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
        "body_encoding": "base64",
    }
    forged = {"body": "bm90IGpzb24=", "properties": properties, "headers": {"task": "os.system", "id": "1"}}
    bomb = {**forged, "headers": {"compression": "application/x-gzip", "task": "tidegate.ticket", "id": "2"}}
    pickled = {**forged, "content-type": "application/x-python-serialize", "content-encoding": "binary"}
    choices = [
        b"\x00\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        json.dumps(forged).encode(),
        json.dumps(bomb).encode(),
        json.dumps(pickled).encode(),
        json.dumps({"properties": None, "body": None}).encode(),
        b"9" * 100_000,
    ]
    return random.sample(choices, 3)
