"""Storms on the server: killed, full, stopped, its scripts flushed, its clients thrown out."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable

import redis

from storm.row import Row, Scale
from storm.scene import Scene, scene, until
from storm.silence import IDLE_SHARE, STALL_S, idle_share, longest_silence_s
from storm.tree import WorkerTree
from tidegate import LedgerError, LedgerFull
from tidegate.embedded import EmbeddedServer
from tidegate.ledger.connection import connect


def server_killed(scale: Scale) -> Row:
    """``kill -9`` of the server, append-only file synced every second; submissions were confirmed by fsync."""
    items, kills = scale.items(300_000, 30_000), scale.faults(10, 2)
    delays: list[float] = []
    with scene(scale.folder / "server-killed", persist=True) as stage:
        with WorkerTree(stage.url, stage.folder, stage.witness, processes=2, settings={"lease_s": 3}) as tree:
            tree.wait_up()
            numbers = (5.0 for _ in range(items))
            job = stage.submit("chaos.note", numbers, batch_size=100, patience_s=600, durable="fsync")
            for _ in range(kills):
                time.sleep(1.0)
                if job.progress().ended:
                    break
                stage.server.kill()
                time.sleep(0.5)
                stage.server.start()
                _wait_loaded(stage.server)
                up, noted = time.monotonic(), stage.witness.stat().st_size
                until(lambda noted=noted: stage.witness.stat().st_size > noted or _ended(stage, job.id), "work went on")
                delays.append(time.monotonic() - up)
            stage.settle(job, patience_s=1800)
            verdict = stage.check(job, items)
            exits = tree.log.read_text(errors="replace").count("replaced in_s=")
    return Row(
        fault="Redis `kill -9`, append-only everysec",
        load=f"{items:,} items, {len(delays)} kills",
        verdict=verdict,
        proof={"server kills": len(delays)},
        shown={"working again after, s": round(max(delays, default=0.0), 2), "re-executed": verdict.executed_again},
        bounds={
            "working again after, s": (max(delays, default=0.0), 5.0),
            "worker exits": (exits, 0),
            "kills that did not happen": (kills - len(delays), 0),
        },
    )


def server_full(scale: Scale) -> Row:
    """``maxmemory`` below what is used: new work is refused with ``LedgerFull``, accepted work drains."""
    items, hold_s = scale.items(200_000, 20_000), scale.faults(30, 2)
    refused = 0
    with scene(scale.folder / "server-full") as stage, stage.server.client() as client:
        with WorkerTree(stage.url, stage.folder, stage.witness, processes=2) as tree:
            tree.wait_up()
            job = stage.submit("chaos.note", (5.0 for _ in range(items)), batch_size=50, patience_s=600)
            until(lambda: job.progress().done, "work began")
            client.config_set("maxmemory", "1mb")
            before = job.progress().done
            until_s = time.monotonic() + hold_s
            while time.monotonic() < until_s:
                try:
                    stage.submit("chaos.note", ["x" * 1000] * 100, patience_s=0.1)
                except LedgerFull:
                    refused += 1
                time.sleep(0.05)
            committed_while_full = job.progress().done - before
            client.config_set("maxmemory", "0")
            stage.settle(job, patience_s=900)
            client.config_set("maxmemory", "1mb")
            idle = idle_share(tree, 3.0)
            client.config_set("maxmemory", "0")
            verdict = stage.check(job, items)
            silence_s = longest_silence_s(stage.witness, job.id)
            jobs = stage.gate.jobs()
    return Row(
        fault="Redis full",
        load=f"{items:,} items, full for {hold_s} s",
        verdict=verdict,
        proof={"submissions refused": refused, "items committed while full": committed_while_full},
        shown={"longest silence, s": round(silence_s, 2)},
        bounds={
            "partial jobs": (len(jobs) - 1, 0),
            "re-executed": (verdict.executed_again, 0),
            "silent stalls": (silence_s > STALL_S, 0),
            "idle processor share": (idle, IDLE_SHARE),
        },
    )


def server_stopped(scale: Scale) -> Row:
    """The server answers nothing for ten seconds: clients wait without using the processor, and go on by themselves."""
    items, stop_s = scale.items(30_000, 4_000), 10.0
    with scene(scale.folder / "server-stopped") as stage:
        with WorkerTree(stage.url, stage.folder, stage.witness, processes=2, settings={"lease_s": 30}) as tree:
            job = stage.submit("chaos.note", (8.0 for _ in range(items)), batch_size=50)
            until(lambda: job.progress().done, "work began")
            os.kill(stage.server.pid, signal.SIGSTOP)
            time.sleep(2.0)  # whatever runs ends
            idle = idle_share(tree, stop_s - 3.0)
            unanswered = _unanswered(stage)
            os.kill(stage.server.pid, signal.SIGCONT)
            back, noted = time.monotonic(), stage.witness.stat().st_size
            until(lambda: stage.witness.stat().st_size > noted or job.progress().ended, "work went on")
            resumed_s = time.monotonic() - back
            stage.settle(job, patience_s=900)
            verdict = stage.check(job, items)
    return Row(
        fault="Redis stopped 10 s",
        load=f"{items:,} items",
        verdict=verdict,
        proof={"requests without an answer": unanswered},
        bounds={"idle processor share": (idle, IDLE_SHARE), "resumed after, s": (resumed_s, STALL_S)},
    )


def scripts_flushed_and_clients_killed(scale: Scale) -> Row:
    """``SCRIPT FLUSH`` every second and ``CLIENT KILL TYPE normal`` every 200 ms."""
    items = scale.items(200_000, 40_000)
    flushed = killed = 0
    with scene(scale.folder / "clients-killed") as stage, stage.server.client() as client:
        with WorkerTree(stage.url, stage.folder, stage.witness, processes=2) as tree:
            tree.wait_up()
            stop = threading.Event()
            job_id: list[str] = []
            producer = threading.Thread(target=_submit_anyway, args=(stage, items, job_id))
            producer.start()
            beat = 0
            while not (job_id and _ended(stage, job_id[0])):
                stop.wait(0.2)
                beat += 1
                if beat % 5 == 0:
                    client.script_flush()
                    flushed += 1
                killed += int(client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
            producer.join()
            idle = idle_share(
                tree, 3.0, lambda: client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            )
            job = stage.gate.job(job_id[0])
            verdict = stage.check(job, items)
            silence_s = longest_silence_s(stage.witness, job.id)
            jobs = stage.gate.jobs()
    return Row(
        fault="scripts flushed each second, clients killed each 200 ms",
        load=f"{items:,} items",
        verdict=verdict,
        proof={"flushes": flushed, "connections killed": killed},
        shown={"re-executed": verdict.executed_again, "longest silence, s": round(silence_s, 2)},
        bounds={
            "duplicated submissions": (len(jobs) - 1, 0),
            "silent stalls": (silence_s > STALL_S, 0),
            # Its connections are killed meanwhile; making new ones on a machine that is busy costs more.
            "idle processor share": (idle, IDLE_SHARE if scale.long else 2 * IDLE_SHARE),
        },
    )


def _submit_anyway(stage: Scene, items: int, job_id: list[str]) -> None:
    job_id.append(stage.submit("chaos.note", (2.0 for _ in range(items)), batch_size=50, id="under-fire").id)


def _unanswered(stage: Scene) -> int:
    with contextlib.closing(connect(stage.url, retries=0, reply_timeout_s=1.0)) as client:
        try:
            client.ping()
        except redis.RedisError:
            return 1
    return 0


def _ended(stage: Scene, job_id: str) -> bool:
    return _persistently(lambda: stage.gate.ledger().progress(job_id).ended)


def _persistently(ask: Callable[[], bool]) -> bool:
    """The observer is under fire too: a question that is cut off counts as not yet."""
    try:
        return ask()
    except LedgerError:
        return False


def _wait_loaded(server: EmbeddedServer) -> None:
    with server.client() as client:
        while True:
            with contextlib.suppress(redis.RedisError):
                if client.ping():
                    return
            time.sleep(0.02)
