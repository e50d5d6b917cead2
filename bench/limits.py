"""What a permit costs: sync no-op items through the executor with no limit, and with each kind of limit, in one process.

    python bench/limits.py [--items 400000] [--runs 5]

The limits are wide enough never to hold anything up, so the difference to no limit is the price of asking. The cluster-wide
ones are leased from a Valkey beside it; requests to it are counted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

from tidegate.embedded import EmbeddedServer
from tidegate.executor.host import Host, HostLimit
from tidegate.limits import LimitAgent
from tidegate.model.limit import Limit
from tidegate.model.policy import TaskPolicy

RATE, BURST = 50_000_000.0, 25_000_000
KINDS = ("none", "rate, this process", "rate, cluster-wide", "concurrency, this process", "concurrency, cluster-wide")


def noop(number: int) -> int:
    return number


def limit_of(host: Host, kind: str) -> tuple[Limit | None, HostLimit | None]:
    """The limit under test and the executor's side of it."""
    if kind == "none":
        return None, None
    supplied = kind.endswith("cluster-wide")
    limit = Limit("bench", rate=RATE, burst=BURST) if kind.startswith("rate") else Limit("bench", concurrency=64)
    inside = host.limit(
        limit.name,
        rate_per_s=limit.rate_per_s,
        burst=limit.burst_permits if limit.rate is not None else None,
        concurrency=limit.concurrency,
        supplied=supplied,
    )
    return limit if supplied else None, inside


def measure(server: EmbeddedServer, kind: str, items: list[int]) -> tuple[float, int]:
    """Nanoseconds an item, and requests to the server."""
    client = server.client()
    client.flushall()
    client.config_resetstat()
    host = Host()
    limit, inside = limit_of(host, kind)
    agent = LimitAgent(client, {"bench": (limit, inside)} if limit and inside else {}, "bench")
    agent.start()
    lane = host.lane("noop", noop, TaskPolicy(concurrency=2), limits=[inside] if inside else [])
    lane.start(items[:1000]).wait()  # the first lease is taken, threads are there
    # The main thread never runs items: another one waits, as a worker's slot does.
    took: list[float] = []

    def wait() -> None:
        start = time.perf_counter_ns()
        lane.start(items).wait()
        took.append((time.perf_counter_ns() - start) / len(items))

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    agent.stop()
    host.close(timeout_s=5)
    calls = sum(
        int(client.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval")
    )
    client.close()
    return took[0], calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=400_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    items = list(range(options.items))
    found: dict[str, list[tuple[float, int]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder) / "valkey") as server:
        for _ in range(options.runs):
            for kind in KINDS:
                found[kind].append(measure(server, kind, items))
    base = statistics.median(ns for ns, _ in found["none"])
    print(f"{options.items:,} sync no-op items, median of {options.runs}")
    for kind, runs in found.items():
        median = statistics.median(ns for ns, _ in runs)
        every = " ".join(f"{ns:.0f}" for ns, _ in runs)
        print(f"{kind:<28}{median:>8.1f} ns/item  {median - base:>+8.1f}   {runs[-1][1]:>4} requests   runs: {every}")


if __name__ == "__main__":
    main()
