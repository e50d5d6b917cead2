"""Storms on the producer: killed at each step and run again; and more items than any memory holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from storm.row import Row, Scale
from storm.scene import Scene, scene
from storm.tree import CHAOS, WorkerTree
from tidegate.testing.chaos.proxy import Call, FaultProxy

_PRODUCER = """
import sys
from storm.chaos_app import gate
gate.map("chaos.note", [0.0] * int(sys.argv[1]), batch_size=10, id=sys.argv[2])
"""


def producer_killed(scale: Scale) -> Row:
    """A producer is killed at its n-th call, before or after it is executed, and run again with the same submission id."""
    runs, items = scale.faults(200, 4), scale.items(8_000, 400)
    wrong: list[str] = []
    killed = 0
    with scene(scale.folder / "producer") as stage:
        with WorkerTree(stage.url, stage.folder, stage.witness, processes=1) as tree:
            tree.wait_up()
            for number in range(runs):
                killed += _submit_with_kill(stage, number, items)
                job = stage.gate.job(f"again-{number}")
                stage.settle(job)
                verdict = stage.check(job, items)
                if not verdict.valid or verdict.executed_again:
                    wrong.append(f"call {1 + number // 2}: {verdict}")
        jobs = stage.gate.jobs(limit=2 * runs)
    return Row(
        fault="producer killed at each step and run again with the same id",
        load=f"{runs} runs of {items:,} items",
        verdict=None,
        proof={"producers killed": killed},
        shown={"wrong jobs": "; ".join(wrong) or "none"},
        bounds={
            "wrong jobs": (len(wrong), 0),
            "duplicated submissions": (len(jobs) - runs, 0),
            "kills that did not happen": (runs - killed, 0),
        },
    )


def _submit_with_kill(stage: Scene, number: int, items: int) -> int:
    """Run a producer through a proxy that kills it at a call that moves on with ``number``; then again, in peace."""
    strike_at = 1 + number // 2
    victims: list[subprocess.Popen[bytes]] = []
    killed: list[int] = []

    def strike(call: Call) -> None:
        if call.number == strike_at and victims and not killed:
            os.kill(victims[0].pid, signal.SIGKILL)
            killed.append(victims[0].pid)

    with FaultProxy(stage.url) as proxy:
        if number % 2:
            proxy.before = strike
        else:
            proxy.after = strike
        environment = {**os.environ, "TIDEGATE_URL": proxy.url, "CHAOS_WITNESS": str(stage.witness)}
        command = [sys.executable, "-c", _PRODUCER, str(items), f"again-{number}"]
        for _attempt in range(2):
            with subprocess.Popen(command, cwd=CHAOS, env=environment, stdout=subprocess.DEVNULL) as producer:
                victims[:] = [producer]
                producer.wait(60)
    return len(killed)


def ten_million(scale: Scale) -> Row:
    """One generator: the memory of producer, workers and collector is flat, and the server stays below the mark."""
    items = scale.items(10_000_000, 2_000_000)
    mark = 8 << 20
    os.environ["TIDEGATE_MAX_PENDING_BYTES"] = str(mark)
    try:
        with scene(scale.folder / "ten-million") as stage:
            with (
                WorkerTree(stage.url, stage.folder, stage.witness, processes=2) as tree,
                _collector(stage) as collector,
            ):
                watch = _Watch(stage, tree, collector)
                began = time.monotonic()
                job = stage.submit("chaos.nothing", (n for n in range(items)), batch_size=1000, keep_results=False)
                progress = stage.settle(job, patience_s=1800)
                took_s = time.monotonic() - began
                watch.stop()
    finally:
        del os.environ["TIDEGATE_MAX_PENDING_BYTES"]
    return Row(
        fault="very many items from one generator",
        load=f"{items:,} items in {took_s:.0f} s, {items / took_s:,.0f} items/s",
        verdict=None,
        proof={"items done": progress.done, "times looked": len(watch.producer)},
        shown={
            "producer grew by, MiB": round(watch.growth(watch.producer) / 2**20, 1),
            "a worker process grew by, MiB": round(watch.growth(watch.worker) / 2**20, 1),
            "the collector grew by, MiB": round(watch.growth(watch.collector) / 2**20, 1),
            "server at most, MiB": round(max(watch.server) / 2**20, 1),
        },
        bounds={
            "items not done": (items - progress.done, 0),
            "producer growth, MiB": (watch.growth(watch.producer) / 2**20, 16),
            "worker growth, MiB": (watch.growth(watch.worker) / 2**20, 32),
            "collector growth, MiB": (watch.growth(watch.collector) / 2**20, 16),
            "server above its mark, MiB": ((max(watch.server) - watch.server[0] - 2 * mark) / 2**20, 0),
        },
    )


@contextmanager
def _collector(stage: Scene) -> Iterator[psutil.Process]:
    """``tidegate collector`` at work on the scene's server."""
    command = [sys.executable, "-m", "tidegate", "collector", "--port", "0", "--json-address"]
    environment = {**os.environ, "TIDEGATE_URL": stage.url}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as collector:
        try:
            assert collector.stdout is not None
            assert collector.stdout.readline(), "the collector says where it listens"
            yield psutil.Process(collector.pid)
        finally:
            collector.terminate()


class _Watch:
    """Looks at the memory of everybody ten times a second, in a thread."""

    def __init__(self, stage: Scene, tree: WorkerTree, collector: psutil.Process) -> None:
        self.producer: list[int] = []
        self.collector: list[int] = []
        self.worker: list[int] = []
        self.server: list[int] = []
        self._stage, self._tree, self._collector = stage, tree, collector
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        me = psutil.Process()
        with self._stage.server.client() as client:
            while not self._stop.wait(0.1):
                self.producer.append(me.memory_info().rss)
                self.collector.append(self._collector.memory_info().rss)
                self.server.append(int(client.info("memory")["used_memory"]))
                living = [child.memory_info().rss for child in self._tree.children()]
                if len(living) == self._tree.processes:
                    self.worker.append(max(living))

    @staticmethod
    def growth(seen: list[int]) -> int:
        """From half of the way (everything is warm by then) to the end."""
        return max(0, seen[-1] - seen[len(seen) // 2]) if seen else 0

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
