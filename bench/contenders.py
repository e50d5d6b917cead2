"""What is compared. Each contender enqueues while its worker is frozen, then the worker drains: two times, two rates."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import redis
from processes import Use, Worker, use_of

from tidegate.embedded import EmbeddedServer

#: Looking whether a contender is done costs the server something; so it is done this often for all of them.
_LOOK_S = 0.01
_WAIT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one contender. Rates are items a second; CPU is microseconds an item; memory is bytes."""

    items: int
    enqueue_s: float
    drain_s: float
    producer_cpu_us: float
    worker_cpu_us: float
    server_enqueue_cpu_us: float
    server_drain_cpu_us: float
    worker_peak_bytes: int
    server_used_bytes: int

    @property
    def enqueue_rate(self) -> float:
        return self.items / self.enqueue_s

    @property
    def drain_rate(self) -> float:
        return self.items / self.drain_s


class Meter:
    """Measures one run: ``enqueue`` and ``drain`` are what is timed."""

    def __init__(self, server: EmbeddedServer, items: int) -> None:
        self._server, self._items = server, items

    def measure(self, worker: Worker | None, enqueue: Callable[[], None], drain: Callable[[], None]) -> Run:
        client = self._server.client()
        server_0, cpu_0, start = self._server_cpu_s(client), time.process_time(), time.perf_counter()
        enqueue()
        enqueued, cpu_1, server_1 = time.perf_counter(), time.process_time(), self._server_cpu_s(client)
        used = int(client.info("memory")["used_memory"])
        worker_0 = worker.use() if worker else Use(time.process_time(), 0)
        begin = time.perf_counter()
        if worker:
            worker.thaw()
        drain()
        end = time.perf_counter()
        worker_1 = worker.use() if worker else Use(time.process_time(), use_of([os.getpid()]).peak_bytes)
        server_2 = self._server_cpu_s(client)
        client.close()
        scale = 1e6 / self._items
        return Run(
            items=self._items,
            enqueue_s=enqueued - start,
            drain_s=end - begin,
            producer_cpu_us=(cpu_1 - cpu_0) * scale,
            worker_cpu_us=(worker_1.cpu_s - worker_0.cpu_s) * scale,
            server_enqueue_cpu_us=(server_1 - server_0) * scale,
            server_drain_cpu_us=(server_2 - server_1) * scale,
            worker_peak_bytes=worker_1.peak_bytes,
            server_used_bytes=used,
        )

    def _server_cpu_s(self, client: redis.Redis) -> float:
        cpu = client.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


def tidegate(server: EmbeddedServer, items: int, batch: int, logs: Path) -> Run:
    """Tidegate: batches, one worker process, every result stored."""
    os.environ["TIDEGATE_URL"] = server.url
    from noop_tidegate import gate, noop

    command = [sys.executable, "-m", "tidegate", "worker", "noop_tidegate:gate", "--processes", "1"]
    with Worker(command, logs / "tidegate.log", TIDEGATE_URL=server.url, TIDEGATE_STATE_DIR=str(logs)) as worker:
        noop.map(range(10 * batch), batch_size=batch).wait(timeout=_WAIT_S)  # warm: modules, connections, scripts
        worker.freeze()
        made = []

        def enqueue() -> None:
            made.append(noop.map(range(items), batch_size=batch))

        def drain() -> None:
            _wait(lambda: made[0].progress().ended)

        run = Meter(server, items).measure(worker, enqueue, drain)
        stands = made[0].progress()
        stored = sum(1 for _ in made[0].results())
        assert stored == items == stands.total, f"{stored} results of {items}"
    gate.close()
    return run


def celery_messages(server: EmbeddedServer, items: int, pool: str, logs: Path) -> Run:
    """Celery, a message per item, results in the same server."""
    point_celery_at(server)
    from noop_celery import app, noop

    with celery_worker(server, pool, logs) as worker, app.pool.acquire(block=True):
        noop.delay(1).get(timeout=_WAIT_S)
        worker.freeze()
        results = _results(server)
        before = results.dbsize()

        def enqueue() -> None:
            for number in range(items):
                noop.delay(number)

        def drain() -> None:
            _wait(lambda: results.dbsize() - before >= items)

        return Meter(server, items).measure(worker, enqueue, drain)


def celery_chunks(server: EmbeddedServer, items: int, batch: int, pool: str, logs: Path) -> Run:
    """Celery's ``chunks``: a message and one result per batch of items."""
    point_celery_at(server)
    from noop_celery import app, noop

    with celery_worker(server, pool, logs) as worker, app.pool.acquire(block=True):
        noop.delay(1).get(timeout=_WAIT_S)
        worker.freeze()
        results = _results(server)
        before = results.dbsize()

        def enqueue() -> None:
            noop.chunks(zip(range(items), strict=True), batch).apply_async()

        def drain() -> None:
            _wait(lambda: results.dbsize() - before >= -(-items // batch))

        return Meter(server, items).measure(worker, enqueue, drain)


def floor(server: EmbeddedServer, items: int, batch: int) -> Run:
    """One Python process: push msgpack blocks, then pop and decode them. No function, no result, no safety."""
    client = server.client()
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode

    def enqueue() -> None:
        for first in range(0, items, batch):
            client.rpush("bench-floor", encode(list(range(first, min(items, first + batch)))))

    def drain() -> None:
        left = items
        while left:
            left -= len(decode(client.lpop("bench-floor")))

    run = Meter(server, items).measure(None, enqueue, drain)
    client.close()
    return run


def celery_worker(server: EmbeddedServer, pool: str, logs: Path) -> Worker:
    """A Celery worker program, one process."""
    command = [sys.executable, "-m", "celery", "-A", "noop_celery", "worker", f"--pool={pool}", "--concurrency=1"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    return Worker([*command, *quiet], logs / "celery.log", **_addresses(server), C_FORCE_ROOT="1")


def _addresses(server: EmbeddedServer) -> dict[str, str]:
    path = server.url.removeprefix("unix://")
    return {
        "BENCH_BROKER": f"redis+socket://{path}?virtual_host=0",
        "BENCH_BACKEND": f"redis+socket://{path}?virtual_host=1",
    }


def point_celery_at(server: EmbeddedServer) -> None:
    """The app of the benchmark, in this process, uses this server."""
    os.environ.update(_addresses(server))


def _results(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(f"{server.url}?db=1")


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not done():
        assert time.monotonic() < deadline, "the worker did not finish in time"
        time.sleep(_LOOK_S)
