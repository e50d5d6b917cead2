"""What a permit costs: sync no-op items through the executor with no limit, and with each kind of limit, in one process.

    python bench/limits.py [--items 400000] [--runs 5]

Keyed limits have 100 keys in turn, and their price contains the key function. The limits are wide enough never to hold
anything up, so the difference to no limit is the price of asking. The cluster-wide ones are leased from a Valkey beside it;
requests to it are counted.
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
from tidegate.model.limit_key import key_function
from tidegate.model.policy import TaskPolicy

RATE, BURST = 50_000_000.0, 25_000_000
PLAIN = ("rate, this process", "rate, cluster-wide", "concurrency, this process", "concurrency, cluster-wide")
KINDS = ("none", *PLAIN, *(f"keyed {kind}" for kind in PLAIN))
KEYS = 100


def noop(number: int) -> int:
    return number


def limit_of(host: Host, kind: str) -> tuple[Limit | None, HostLimit | None]:
    """The limit under test and the executor's side of it."""
    if kind == "none":
        return None, None
    supplied = kind.endswith("cluster-wide")
    key = (lambda number: number % KEYS) if kind.startswith("keyed") else None
    limit = (
        Limit("bench", rate=RATE, burst=BURST, key=key) if "rate" in kind else Limit("bench", concurrency=64, key=key)
    )
    return limit, host.limit_of(limit, supplied=supplied)


def measure(server: EmbeddedServer, kind: str, items: list[int]) -> tuple[float, int]:
    """Nanoseconds an item, and requests to the server."""
    client = server.client()
    client.flushall()
    client.config_resetstat()
    host = Host()
    limit, inside = limit_of(host, kind)
    supplied = limit is not None and inside is not None and kind.endswith("cluster-wide")
    agent = LimitAgent(client, {"bench": (limit, inside)} if supplied else {}, "bench")
    agent.start()
    keys = [key_function("bench", limit.key)] if limit is not None and limit.key is not None else []
    lane = host.lane("noop", noop, TaskPolicy(concurrency=2), limits=[inside] if inside else [], keys=keys)
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
        print(f"{kind:<34}{median:>8.1f} ns/item  {median - base:>+8.1f}   {runs[-1][1]:>4} requests   runs: {every}")


if __name__ == "__main__":
    main()
