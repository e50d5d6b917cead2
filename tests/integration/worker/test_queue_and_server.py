"""Strangers write to the ticket queue, tickets get lost, the server goes away and comes back."""

from __future__ import annotations

import base64
import json
import pickle
import signal
import uuid
import zlib
from typing import Any

import pytest
from worker_site import Site, wait_until

from tidegate.embedded import EmbeddedServer
from tidegate.model.job import new_job_id
from tidegate.telemetry.quarantine import Quarantine
from tidegate.telemetry.stream import TelemetryReader
from tidegate.worker.tickets import TICKET_TASK

QUEUE = "tidegate"


def _message(body: Any, *, task: str = TICKET_TASK, content_type: str = "application/json", **headers: Any) -> bytes:
    """A kombu message as Celery would write it, with anything in it."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.dumps(
        {
            "body": base64.b64encode(data).decode(),
            "content-type": content_type,
            "content-encoding": "utf-8",
            "headers": {"task": task, "id": str(uuid.uuid4()), "lang": "py", **headers},
            "properties": {
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "priority": 0,
            },
        }
    ).encode()


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit",))


def _hostile() -> list[bytes]:
    ticket = [[new_job_id(), 1], {}, {}]
    return [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"{}",
        b"null",
        b'{"headers": null, "body": 1}',
        b'{"headers": {"task": "tidegate.ticket"}}',
        json.dumps({"headers": {"task": TICKET_TASK}, "body": "!!", "content-type": "application/json"}).encode(),
        _message(pickle.dumps(_Evil()), content_type="application/x-python-serialize"),
        _message(zlib.compress(b"\0" * 10_000_000), compression="application/x-gzip"),
        _message(ticket, task="os.system"),
        _message(ticket, task="celery.chord_unlock"),
        _message([["../../etc", 1], {}, {}]),
        _message([[new_job_id(), -1], {}, {}]),
        _message([[new_job_id(), True], {}, {}]),
        _message([[new_job_id(), 10**30], {}, {}]),
        _message([[new_job_id()], {}, {}]),
        _message([[new_job_id(), 1, 2], {}, {}]),
        _message([[new_job_id(), 1], {"kwarg": 1}, {}]),
        _message("x" * 100_000),
    ]


def test_hostile_messages_are_refused_and_no_process_is_replaced(site: Site) -> None:
    tree = site.start(processes=2).ready()
    client = site.gate.ledger().client  # type: ignore[attr-defined]
    hostile = _hostile()
    job = site.task("nap").map([0.01] * 300, batch_size=20)
    for message in hostile:
        client.lpush(QUEUE, message)
    forged = _message([[job.id, 1], {}, {"chain": [{"task": "os.system"}]}], eta="2199-01-01T00:00:00", retries=-1)
    client.lpush(QUEUE, forged)
    unknown_job = _message([[new_job_id(), 7], {}, {}])
    client.lpush(QUEUE, unknown_job)
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 300}
    assert site.testimony(job).executed_again == 0
    wait_until(lambda: tree.log.count("message refused") == len(hostile), "every hostile message was refused")
    wait_until(lambda: client.llen(QUEUE) == 0, "the queue is empty")
    # Said first, and kept after it.
    kept = wait_until(lambda: (k := Quarantine(client).newest(100)) and len(k) == len(hostile) and k, "all were kept")
    assert all(refusal.reason for refusal in kept)
    assert tree.log.count(" ready worker=") == 2
    assert "replaced" not in tree.log
    assert tree.stop() == 0
    records = TelemetryReader(client).read(count=10_000)[0]
    assert sum(record.refused for _, record in records) == len(hostile)


def test_lost_tickets_are_replaced_and_repeated_ones_change_nothing(site: Site) -> None:
    client = site.gate.ledger().client  # type: ignore[attr-defined]
    job = site.task("double").map(range(400), batch_size=10)
    assert client.llen(QUEUE) > 0
    tickets = client.lrange(QUEUE, 0, -1)
    client.delete(QUEUE)
    site.start(sweep_s=0.3).ready()
    job.wait(timeout=60)
    again = site.task("double").map(range(400), batch_size=10)
    for ticket in client.lrange(QUEUE, 0, -1) + tickets:
        client.lpush(QUEUE, *[ticket] * 10)
    again.wait(timeout=60)
    for one in (job, again):
        assert site.outcomes(one) == {"succeeded": 400}
        assert site.testimony(one).executed_again == 0


def test_jobs_share_a_process_round_robin(site: Site) -> None:
    site.start(slots=1).ready()
    long = site.task("nap").map([0.05] * 200, batch_size=1)
    wait_until(lambda: long.progress().done > 2, "the long job runs")
    short = site.task("nap").map([0.05] * 5, batch_size=1)
    short.wait(timeout=60)
    assert long.progress().pending > 0, "the short job did not wait for the long one"
    long.cancel()


@pytest.mark.chaos
def test_a_server_that_is_killed_and_restarted_is_waited_for(fragile_site: tuple[Site, EmbeddedServer]) -> None:
    site, server = fragile_site
    tree = site.start(processes=2, lease_s=30).ready()
    items = 600
    job = site.task("nap").map([0.01] * items, batch_size=20)
    wait_until(lambda: job.progress().done > 50, "the job runs")
    server.kill()
    wait_until(lambda: "ledger does not answer" in tree.log, "its absence was noticed")
    children = tree.children()
    server.start()
    job.wait(timeout=100)
    assert site.outcomes(job) == {"succeeded": items}
    assert sorted(index for index, _ in job.results()) == list(range(items))
    wait_until(lambda: "ledger answers again" in tree.log, "it says so")
    assert {child.pid for child in tree.children()} == {child.pid for child in children}, "nobody was replaced"
    assert tree.stop() == 0


@pytest.mark.chaos
def test_a_tree_stops_in_time_while_the_server_is_away(fragile_site: tuple[Site, EmbeddedServer]) -> None:
    site, server = fragile_site
    tree = site.start(grace_s=1.0).ready()
    job = site.task("nap").map([0.1] * 100, batch_size=50)
    wait_until(lambda: job.progress().done > 2, "the job runs")
    server.kill()
    wait_until(lambda: "ledger does not answer" in tree.log, "its absence was noticed")
    tree.signal(signal.SIGTERM)
    assert tree.wait(40) == 0
    server.start()
    site.start(lease_s=2).ready()
    job.wait(timeout=100)
    assert site.outcomes(job) == {"succeeded": 100}


@pytest.mark.chaos
def test_a_process_that_is_alive_and_does_nothing_reconnects_and_then_is_replaced(site: Site) -> None:
    # A process whose Celery consumer was taken away behind its back: the first time reconnecting helps, then it does not.
    (site.folder / "deaf_app.py").write_text(
        "import os, threading, time\n"
        "from pathlib import Path\n"
        "from worker_app import gate\n"
        "from celery.worker.consumer.tasks import Tasks\n"
        "once = Path(os.environ['WITNESS'] + '.deaf')\n"
        "start = Tasks.start\n"
        "def deaf(self, consumer):\n"
        "    start(self, consumer)\n"
        "    count = int(once.read_text()) if once.exists() else 0\n"
        "    once.write_text(str(count + 1))\n"
        "    if count < 2:\n"
        "        consumer.task_consumer.channel.qos.can_consume = lambda: False\n"
        "Tasks.start = deaf\n"
    )
    tree = site.start(app="deaf_app:gate", watchdog_s=3.0, sweep_s=0.3).ready()
    job = site.task("double").map(range(20), batch_size=5)
    job.wait(timeout=80)
    assert "has ready batches, reconnecting" in tree.log
    assert "most recent call first" in tree.log, "the stacks were dumped"
    assert "alive and doing nothing" in tree.log
    assert tree.log.count("replaced in_s") == 1
    assert site.outcomes(job) == {"succeeded": 20}
    assert site.testimony(job).executed_again == 0
