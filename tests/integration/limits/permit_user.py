"""One process that uses permits of one cluster-wide limit and writes down every use. Started by the tests beside it.

    python permit_user.py URL LOG '{"name": …, "rate": …, "burst": …, "concurrency": …}' OPTIONS

The log is a file of 16-byte records (kind, ``time.monotonic_ns()``): 1 a use began, 2 it ended. Records are written at
once, so that a killed process leaves all of them. It runs until its standard input closes.
``engine``: "recorder" admits starts by itself, by the rules of ``SuppliedLimit``; "host" is the real executor.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

from tidegate.limits import LimitAgent
from tidegate.model.limit import Limit

BEGAN, ENDED = 1, 2


class Log:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, kind: int, at_ns: int) -> None:
        os.write(self._file, struct.pack("=qq", kind, at_ns))


class Recorder:
    """An executor's limit without the executor: ``demand`` items wait, each takes ``work_s`` once it may start."""

    def __init__(self, log: Log, *, demand: int, work_s: float) -> None:
        self.on_retry_after: Callable[[str, float], None] | None = None
        self._log, self._demand, self._work_s = log, demand, work_s
        self._lock = threading.Condition()
        self._offers: list[tuple[int, int]] = []
        self._capacity = self._in_use = self._used = self._paused_ns = 0

    def set_capacity(self, permits: int) -> None:
        with self._lock:
            self._capacity = permits
            self._lock.notify_all()

    def offer(self, start_mono_ns: int, interval_ns: int, count: int, tolerance_ns: int) -> None:
        with self._lock:
            starts = [start_mono_ns + i * interval_ns for i in range(count)]
            self._offers += [(start, start + tolerance_ns) for start in starts]
            self._lock.notify_all()

    def pause_until(self, mono_ns: int) -> None:
        with self._lock:
            self._paused_ns = 0 if mono_ns == 0 else max(self._paused_ns, mono_ns)

    def demand(self) -> int:
        return self._demand

    def in_use(self) -> int:
        return self._in_use

    def used(self) -> int:
        return self._used

    def use_slots(self) -> None:
        while True:
            with self._lock:
                while not self._offers:
                    self._lock.wait()
                start, end = self._offers[0]
                now = time.monotonic_ns()
                if now > end:
                    self._offers.pop(0)
                    continue
                if now >= max(start, self._paused_ns):
                    self._offers.pop(0)
                    self._used += 1
                    self._log.write(BEGAN, now)
                else:
                    wait_s = (max(start, self._paused_ns) - now) / 1e9
                    self._lock.wait(min(wait_s, 0.05))
                    continue
            if self._work_s:
                time.sleep(self._work_s)

    def use_permits(self) -> None:
        while True:
            with self._lock:
                while self._in_use >= self._capacity or time.monotonic_ns() < self._paused_ns:
                    self._lock.wait(0.05)
                self._in_use += 1
                self._used += 1
                self._log.write(BEGAN, time.monotonic_ns())
            time.sleep(random.uniform(0, 2 * self._work_s))
            with self._lock:
                self._log.write(ENDED, time.monotonic_ns())
                self._in_use -= 1
                self._lock.notify()


def start_recorder(limit: Limit, log: Log, options: dict[str, Any]) -> Recorder:
    host = Recorder(log, demand=options.get("demand", 1000), work_s=options.get("work_s", 0.0))
    use, threads = (host.use_slots, 1) if limit.rate is not None else (host.use_permits, options.get("threads", 4))
    for _ in range(threads):
        threading.Thread(target=use, daemon=True).start()
    return host


def start_host(limit: Limit, log: Log, options: dict[str, Any]) -> Any:
    """The real executor, with more items than the test will see run."""
    from tidegate.executor.host import Host
    from tidegate.model.policy import TaskPolicy

    work_s = options.get("work_s", 0.0)

    def item(number: int) -> None:
        log.write(BEGAN, time.monotonic_ns())
        if work_s:
            time.sleep(random.uniform(0, 2 * work_s))
        log.write(ENDED, time.monotonic_ns())

    host = Host()
    inside = host.limit(
        limit.name,
        rate_per_s=limit.rate_per_s,
        burst=limit.burst_permits if limit.rate is not None else None,
        concurrency=limit.concurrency,
        supplied=True,
    )
    lane = host.lane("item", item, TaskPolicy(concurrency=options.get("threads", 4)), limits=[inside])
    KEPT.append((host, lane.start(list(range(100_000)))))
    return inside


KEPT: list[Any] = []  # the host lives as long as somebody holds it


def main() -> None:
    url, path, limit_text, options_text = sys.argv[1:]
    limit, options = Limit(**json.loads(limit_text)), json.loads(options_text)
    log = Log(path)
    host = (start_host if options.get("engine") == "host" else start_recorder)(limit, log, options)
    client = redis.Redis.from_url(url)
    agent = LimitAgent(client, {limit.name: (limit, host)}, f"user-{os.getpid()}", lease_s=options.get("lease_s", 8.0))
    agent.start()
    for line in sys.stdin:
        if line.startswith("retry-after") and host.on_retry_after:
            host.on_retry_after(limit.name, float(line.split()[1]))
            print("told", flush=True)
    agent.stop()
    os._exit(0)  # items that still wait are not run to their end


main()
