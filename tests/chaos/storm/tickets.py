"""Storms on the Celery queue: tickets deleted, repeated, malformed."""

from __future__ import annotations

import json
import time
from random import Random

from storm.row import Row, Scale
from storm.scene import scene
from storm.tree import WorkerTree

QUEUE = "tidegate"


def tickets(scale: Scale) -> Row:
    """All tickets deleted again and again, the others repeated ten times, and rubbish mixed in."""
    items = scale.items(400_000, 40_000)
    random = Random(scale.seed)
    deleted = repeated = malformed = 0
    with scene(scale.folder / "tickets") as stage, stage.server.client() as client:
        with WorkerTree(stage.url, stage.folder, stage.witness, processes=2, settings={"sweep_s": 0.5}) as tree:
            tree.wait_up()
            job = stage.submit("chaos.note", (2.0 for _ in range(items)), batch_size=50, patience_s=600)
            while not job.progress().ended:
                time.sleep(0.1)
                messages = list(dict.fromkeys(client.lrange(QUEUE, 0, 50)))  # the copies are not copied again
                if messages and random.random() < 0.3:
                    deleted += client.delete(QUEUE) and len(messages)
                for message in messages if client.llen(QUEUE) < 500 else ():
                    client.lpush(QUEUE, *([message] * 10))
                    repeated += 10
                client.lpush(QUEUE, *(rubbish := _rubbish(random)))
                malformed += len(rubbish)
            stage.settle(job, patience_s=900)
            verdict = stage.check(job, items)
            tree.wait_up()
            exits = int(tree.exit_code is not None) + tree.log.read_text(errors="replace").count("replaced in_s=")
    return Row(
        fault="tickets all deleted; each repeated 10 times; malformed ones mixed in",
        load=f"{items:,} items",
        verdict=verdict,
        proof={"tickets deleted": deleted, "repeated": repeated, "malformed": malformed},
        shown={"extra executions": verdict.executed_again},
        bounds={"extra executions": (verdict.executed_again, 0), "worker exits": (exits, 0)},
    )


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
