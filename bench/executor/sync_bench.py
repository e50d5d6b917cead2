"""The executor's sync, C and memory figures against their peers, in one run.

    python bench/executor/sync_bench.py [--items 200000] [--rounds 5] [--json FILE]

Every figure is the median of the rounds; rounds go round robin over the contenders, so that a slow minute of the machine
falls on all of them. Statistics, timeout and retry policy are on for everything of ours. Prints parameters, versions, all
runs, medians, and ratios with the goals beside them.

Sync items: a Python function that returns its argument.
    bare loop with try          for, try, append: what one writes without any control
    Host.run, one run           all items submitted at once to the executor under the workers, as a worker does
    Host.run, batches of 1,000  the same, a batch after the other
    Executor.map                what a user calls; the values and times of every item are kept
    ThreadPoolExecutor.map      8 threads; a fifth of the items, its cost an item does not depend on how many there are
C elements: a C function of fixed cost (a chain of steps, each of which needs the one before) over an array of doubles.
    plain C loop, one thread    calls the function through a pointer, no clock, no statistics
    pool, one thread            Executor.map with concurrency 1
    pool, all cores             Executor.map with a thread a core; the calling thread sleeps
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
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
from pathlib import Path
from typing import Any

from tidegate.executor import CFunction, _native
from tidegate.executor.executor import Executor
from tidegate.executor.host import Host
from tidegate.executor.memory import memory_bytes
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry

C_STEPS = {"about 0.1 µs": 60, "about 0.2 µs": 120, "about 1 µs": 600}
GOALS = {
    "sync: ThreadPoolExecutor.map / Executor.map": 100.0,
    "sync: Host.run / bare loop": 2.5,
    **{f"C, {title}: plain loop / pool on all cores": 1.7 for title in C_STEPS},
    "memory: waiting item / asyncio.Task": 0.25,
}
AT_MOST = {"sync: Host.run / bare loop", "memory: waiting item / asyncio.Task"}
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


def plain_loop(address: int, numbers: array[float]) -> None:
    """The C loop on the calling thread. ctypes lets go of the GIL once for all of it."""
    loop = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    results = array("d", bytes(8 * len(numbers)))
    loop(_native.simulate_loop_address)(address, numbers.buffer_info()[0], results.buffer_info()[0], len(numbers))


def c_figures(rounds: int, elements: int, steps: int, cpu: dict[str, list[float]]) -> dict[str, list[float]]:
    """Nanoseconds an element of C work: the plain loop, then the pool on one thread and on all cores."""
    numbers = array("d", [float(steps)]) * elements
    work = CFunction(_native.simulate_work_address)
    with Executor(1) as one, Executor(os.cpu_count() or 1) as all_cores:
        contenders: dict[str, Callable[[Any], Any]] = {
            "plain C loop, one thread": lambda items: plain_loop(_native.simulate_work_address, items),
            "pool, one thread": lambda items: one.map(work, items),
            "pool, all cores": lambda items: all_cores.map(work, items),
        }
        return measure(contenders, numbers, rounds, cpu)


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
    contenders: dict[str, Callable[[Any], Any]], items: Any, rounds: int, cpu: dict[str, list[float]] | None = None
) -> dict[str, list[float]]:
    """Nanoseconds per item of every round, after one round that warms up. ``cpu``: filled with processor time likewise."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            some = items[: len(items) // 5] if name == "ThreadPoolExecutor.map" else items
            began, cpu_began = time.perf_counter(), time.process_time()
            contender(some)
            if number:
                found[name].append((time.perf_counter() - began) / len(some) * 1e9)
                if cpu is not None:
                    cpu.setdefault(name, []).append((time.process_time() - cpu_began) / len(some) * 1e9)
    return found


def run(items: int, rounds: int) -> dict[str, Any]:
    """Everything, as one document."""
    numbers = list(range(items))
    cpu: dict[str, dict[str, list[float]]] = {title: {} for title in C_STEPS}
    return {
        "parameters": {
            "items": items,
            "rounds": rounds,
            "concurrency": 100,
            "timeout_s": 10,
            "attempts": 3,
            "steps of C elements": C_STEPS,
        },
        "machine": {
            "cores": os.cpu_count(),
            "python": sys.version,
            "kernel": platform.release(),
            "load": os.getloadavg(),
        },
        "versions": {"core": _native.core_version},
        "goals": GOALS,
        "ns_per_item": on_a_thread(lambda: sync_figures(numbers, rounds)),
        "ns_per_c_element": {
            title: c_figures(rounds, max(1000, items * 100 // steps), steps, cpu[title])
            for title, steps in C_STEPS.items()
        },
        "cpu_ns_per_c_element": cpu,
        "bytes_per_waiting_item": in_a_fresh_process("items"),
        "bytes_per_waiting_task": in_a_fresh_process("tasks"),
    }


def medians(runs: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in runs.items()}


def figures(document: dict[str, Any]) -> dict[str, float]:
    """What there is a goal for."""
    sync = medians(document["ns_per_item"])
    found = {
        "sync: ThreadPoolExecutor.map / Executor.map": sync["ThreadPoolExecutor.map"] / sync["Executor.map"],
        "sync: Host.run / bare loop": sync["Host.run, one run"] / sync["bare loop with try"],
        "memory: waiting item / asyncio.Task": document["bytes_per_waiting_item"] / document["bytes_per_waiting_task"],
    }
    for title, runs in document["ns_per_c_element"].items():
        median = medians(runs)
        gain = median["plain C loop, one thread"] / median["pool, all cores"]
        found[f"C, {title}: plain loop / pool on all cores"] = gain
    return found


def verdict(name: str, value: float) -> str:
    at_most = name in AT_MOST
    goal = GOALS[name]
    reached = value <= goal if at_most else value >= goal
    return f"(goal {'<=' if at_most else '>='} {goal:g}: {'reached' if reached else 'MISSED'})"


def show_table(title: str, unit: str, runs: dict[str, list[float]], against: str) -> None:
    median = medians(runs)
    print(f"\n{title:<30}{unit:>12}{'items/s':>14}{'time vs ' + against.partition(',')[0]:>34}   all rounds (ns)")
    for name, times in runs.items():
        rounds = " ".join(f"{one:.0f}" for one in times)
        ratio = f"{median[name] / median[against]:.2f} x"
        print(f"{name:<30}{median[name]:>12.0f}{1e9 / median[name]:>14,.0f}{ratio:>34}   {rounds}")


def show(document: dict[str, Any]) -> None:
    for title in ("parameters", "machine", "versions"):
        print(f"{title}: {document[title]}")
    show_table("sync no-op items", "ns/item", document["ns_per_item"], "bare loop with try")
    for title, c_runs in document["ns_per_c_element"].items():
        show_table(f"C elements of {title}", "ns/element", c_runs, "plain C loop, one thread")
        cpu = medians(document["cpu_ns_per_c_element"][title])
        print("  processor ns/element: " + ", ".join(f"{name} {spent:.0f}" for name, spent in cpu.items()))
    item, task = document["bytes_per_waiting_item"], document["bytes_per_waiting_task"]
    print(f"\nmemory: {item:.0f} bytes a waiting item, {task:.0f} bytes a waiting asyncio.Task\n")
    for name, value in figures(document).items():
        print(f"{name}: {value:.2f} {verdict(name, value)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every run here")
    parser.add_argument("--memory", choices=["items", "tasks"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(bytes_of_waiting_items() if options.memory == "items" else bytes_of_tasks())
        return
    document = run(options.items, options.rounds)
    show(document)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
