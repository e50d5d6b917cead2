"""The executor's sync, C and memory figures against their peers, in one run.

    python bench/executor/sync_bench.py [--items 200000] [--rounds 5] [--json]

Every figure is the median of the rounds; rounds go round robin over the contenders, so that a slow minute of the machine
falls on all of them. Statistics, timeout and retry policy are on for everything of ours. Prints parameters, versions, all
runs, medians, and ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tidegate.executor import CFunction, _native
from tidegate.executor.executor import Executor
from tidegate.executor.host import Host
from tidegate.executor.memory import memory_bytes
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry

POLICY = TaskPolicy(concurrency=100, timeout=10, retry=Retry(attempts=3))


def echo(value: int) -> int:
    return value


def bare_loop(items: list[int]) -> None:
    found: list[Any] = []
    for item in items:
        try:
            found.append(echo(item))
        except Exception as error:
            found.append(error)


def thread_pool(items: list[int]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(echo, items))


class Ours:
    """The executor and the host under it, made once: a worker makes them once too."""

    def __init__(self) -> None:
        self.executor = Executor(100, timeout=10, retry=Retry(attempts=3))
        self.host = Host()
        self.lane = self.host.lane("echo", echo, POLICY)

    def map(self, items: list[int]) -> None:
        self.executor.map(echo, items)

    def run(self, items: list[int]) -> None:
        run = self.lane.start(items)
        run.wait(None)
        run.take()

    def batches(self, items: list[int], size: int = 1000) -> None:
        for first in range(0, len(items), size):
            self.run(items[first : first + size])

    def close(self) -> None:
        self.executor.close()
        self.host.close()


def sync_contenders(ours: Ours) -> dict[str, Callable[[list[int]], None]]:
    return {
        "bare loop with try": bare_loop,
        "Host.run, one run": ours.run,
        "Host.run, batches of 1,000": ours.batches,
        "Executor.map": ours.map,
        "ThreadPoolExecutor.map": thread_pool,
    }


def c_figures(rounds: int, elements: int) -> dict[str, list[float]]:
    """Nanoseconds an element of C work that spins for 2 µs: the pool on one thread and on all cores."""
    numbers = array("d", [2e-6]) * elements
    spin = CFunction(_native.simulate_spin_address)
    found: dict[str, list[float]] = {"one thread": [], "all cores": []}
    with Executor(1) as one, Executor(os.cpu_count() or 1) as all_cores:
        for number in range(rounds + 1):
            for name, executor in (("one thread", one), ("all cores", all_cores)):
                began = time.perf_counter()
                executor.map(spin, numbers)
                if number:
                    found[name].append((time.perf_counter() - began) / elements * 1e9)
    return found


def bytes_of_waiting_items(count: int = 200_000) -> float:
    """Bytes that an item costs while it waits in the executor, its argument not counted."""
    with Host() as host:
        shut = host.limit("shut", concurrency=1, supplied=True)
        lane = host.lane("waiting", echo, POLICY, limits=[shut])
        items = list(range(count))
        gc.collect()
        before = memory_bytes()
        run = lane.start(items)
        used = memory_bytes() - before
        run.cancel()
        return used / count


def bytes_of_tasks(count: int = 50_000) -> float:
    """Bytes that an asyncio.Task with its coroutine costs while it waits for a semaphore."""

    async def main() -> float:
        gate = asyncio.Semaphore(0)

        async def wait() -> None:
            async with gate:
                pass

        gc.collect()
        before = memory_bytes()
        tasks = [asyncio.create_task(wait()) for _ in range(count)]
        await asyncio.sleep(0)
        used = memory_bytes() - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return used / count

    return asyncio.run(main())


def sync_figures(items: list[int], rounds: int) -> dict[str, list[float]]:
    ours = Ours()
    try:
        return measure(sync_contenders(ours), items, rounds)
    finally:
        ours.close()


def on_a_thread(work: Callable[[], dict[str, list[float]]]) -> dict[str, list[float]]:
    """As in a worker, whose slots are threads: the main thread never runs items, because it has to hear signals."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def in_a_fresh_process(what: str) -> float:
    """Memory is only told by a process that has not freed any before."""
    done = subprocess.run([sys.executable, __file__, "--memory", what], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(
    contenders: dict[str, Callable[[list[int]], None]], items: list[int], rounds: int
) -> dict[str, list[float]]:
    """Nanoseconds per item of every round, after one round that warms up."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender(items)
            if number:
                found[name].append((time.perf_counter() - began) / len(items) * 1e9)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory", choices=["items", "tasks"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(bytes_of_waiting_items() if options.memory == "items" else bytes_of_tasks())
        return
    items = list(range(options.items))
    runs = on_a_thread(lambda: sync_figures(items, options.rounds))
    c_runs = c_figures(options.rounds, max(1000, options.items // 20))
    document = {
        "parameters": {
            "items": options.items,
            "rounds": options.rounds,
            "concurrency": 100,
            "timeout_s": 10,
            "attempts": 3,
        },
        "machine": {
            "cores": os.cpu_count(),
            "python": sys.version,
            "kernel": platform.release(),
            "load": os.getloadavg(),
        },
        "versions": {"core": _native.core_version},
        "ns_per_item": runs,
        "ns_per_c_element": c_runs,
        "bytes_per_waiting_item": in_a_fresh_process("items"),
        "bytes_per_waiting_task": in_a_fresh_process("tasks"),
    }
    print(json.dumps(document, indent=2)) if options.json else show(document)


def show(document: dict[str, Any]) -> None:
    for title in ("parameters", "machine", "versions"):
        print(f"{title}: {document[title]}")
    median = {name: statistics.median(times) for name, times in document["ns_per_item"].items()}
    print(f"\n{'sync no-op items':<30}{'ns/item':>10}{'items/s':>14}{'vs loop':>9}{'vs pool':>9}   all rounds (ns)")
    for name, times in document["ns_per_item"].items():
        loop, pool = median[name] / median["bare loop with try"], median["ThreadPoolExecutor.map"] / median[name]
        rounds = " ".join(f"{one:.0f}" for one in times)
        print(f"{name:<30}{median[name]:>10.0f}{1e9 / median[name]:>14,.0f}{loop:>8.2f}x{pool:>8.1f}x   {rounds}")
    c_median = {name: statistics.median(times) for name, times in document["ns_per_c_element"].items()}
    print(f"\n{'C elements that spin 2 µs':<30}{'ns/element':>10}")
    for name, times in document["ns_per_c_element"].items():
        print(f"{name:<30}{c_median[name]:>10.0f}   {' '.join(f'{one:.0f}' for one in times)}")
    print(f"all cores are {c_median['one thread'] / c_median['all cores']:.2f} x as fast as one thread")
    item, task = document["bytes_per_waiting_item"], document["bytes_per_waiting_task"]
    print(f"\nmemory: {item:.0f} bytes a waiting item, {task:.0f} bytes a waiting asyncio.Task ({item / task:.2f})")


if __name__ == "__main__":
    main()
