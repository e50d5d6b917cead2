"""How long one call takes on an idle system, from ``submit`` to the value: ``python bench/single_call.py [--calls 300]``.

One worker process, one Valkey, calls one after another with a pause between them, so that each finds everybody waiting.
Celery's ``delay(…).get()`` runs beside it on the same server, taking turns, and so does a bare ``PING``: on an idle machine
most of a call is spent waking somebody up. Percentiles in milliseconds, per round and over all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import contenders
from processes import Worker

from tidegate.embedded import EmbeddedServer

Call = Callable[[int], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=300, help="calls in a round")
    parser.add_argument("--runs", type=int, default=5, help="rounds; contenders take turns")
    parser.add_argument("--pause-ms", type=float, default=20.0, help="between two calls")
    options = parser.parse_args()
    rounds: dict[str, list[list[float]]] = {"tidegate": [], "celery": [], "ping": []}
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder, EmbeddedServer(Path(folder) / "v") as server:
        client = server.client()
        ping: Call = lambda number: number if client.ping() else 0  # noqa: E731 - beside the two others it is one more call
        with tidegate(server, Path(folder)) as ours, celery(server, Path(folder)) as theirs:
            for _ in range(options.runs):
                for name, call in (("tidegate", ours), ("celery", theirs), ("ping", ping)):
                    rounds[name].append([took_ms(call, options.pause_ms / 1e3) for _ in range(options.calls)])
    print(f"{options.calls} calls a round, {options.runs} rounds, {options.pause_ms:g} ms apart; milliseconds")
    for name, found in rounds.items():
        every = sorted(ms for run in found for ms in run)
        each = " ".join(f"{statistics.median(run):.2f}" for run in found)
        tail = "  ".join(
            f"p{share} {every[min(len(every) - 1, len(every) * share // 100)]:.2f}" for share in (50, 95, 99)
        )
        print(f"{name:<10}{tail}   p50 of each round: {each}")


def took_ms(call: Call, pause_s: float) -> float:
    """One call."""
    time.sleep(pause_s)
    start = time.perf_counter()
    assert call(7) == 7
    return (time.perf_counter() - start) * 1e3


@contextmanager
def tidegate(server: EmbeddedServer, logs: Path) -> Iterator[Call]:
    """``noop.submit(…).result()``."""
    os.environ["TIDEGATE_URL"] = server.url
    from noop_tidegate import gate, noop

    command = [sys.executable, "-m", "tidegate", "worker", "noop_tidegate:gate", "--processes", "1"]
    with Worker(command, logs / "tidegate.log", TIDEGATE_URL=server.url, TIDEGATE_STATE_DIR=str(logs)):
        assert noop.submit(1).result(60) == 1
        yield lambda number: noop.submit(number).result(60)
        gate.close()


@contextmanager
def celery(server: EmbeddedServer, logs: Path) -> Iterator[Call]:
    """``noop.delay(…).get()``."""
    contenders.point_celery_at(server)
    from noop_celery import app, noop

    with contenders.celery_worker(server, "solo", logs), app.pool.acquire(block=True):
        noop.delay(1).get(timeout=60)
        yield lambda number: int(noop.delay(number).get(timeout=60))


if __name__ == "__main__":
    main()
