"""The agent in this process: what it refuses, how it starts and ends, what an idle one costs."""

from __future__ import annotations

import threading
import time

import pytest
import redis

from tidegate import Tidegate
from tidegate.errors import LedgerUnavailable
from tidegate.limits import LimitAgent, keeper, keys, pause
from tidegate.model.limit import Limit
from tidegate.testing import InProcessWorker


class Quiet:
    """An executor's limit that may be given work by the test."""

    def __init__(self) -> None:
        self.on_retry_after = None
        self.waiting = 0
        self.capacity = -1
        self.offered = threading.Event()
        self.looks = 0

    def set_capacity(self, permits: int) -> None:
        self.capacity = permits

    def offer(self, start_mono_ns: int, interval_ns: int, count: int, tolerance_ns: int) -> None:
        self.offered.set()

    def pause_until(self, mono_ns: int) -> None:
        pass

    def demand(self) -> int:
        self.looks += 1
        return self.waiting

    def in_use(self) -> int:
        return 0

    def used(self) -> int:
        return 0


def test_an_idle_agent_asks_the_server_nothing_and_hardly_looks(ledger_url: str) -> None:
    client = redis.Redis.from_url(ledger_url)
    rate, few, before = Quiet(), Quiet(), threading.enumerate()
    agent = LimitAgent(client, {"api": (Limit("api", rate=10), rate), "few": (Limit("few", concurrency=2), few)}, "me")
    agent.start()
    [thread] = [one for one in threading.enumerate() if one.name == "tidegate-limits" and one not in before]
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    time.sleep(1.5)  # what does not happen in this time is what is to be shown
    looks, cpu, began = rate.looks, time.clock_gettime(clock), time.monotonic()
    assert client.keys("tg:*") == []
    time.sleep(0.5)
    assert rate.looks - looks < 50 * (time.monotonic() - began)
    assert time.clock_gettime(clock) - cpu < 0.1
    rate.waiting = 1
    agent.wake()
    assert rate.offered.wait(60)
    assert client.exists(keys.limit_key("api"))
    agent.stop()
    assert not thread.is_alive()
    client.close()


def test_permits_are_given_back_on_stop(ledger_url: str) -> None:
    client = redis.Redis.from_url(ledger_url)
    host = Quiet()
    host.waiting = 5
    agent = LimitAgent(client, {"few": (Limit("few", concurrency=3), host)}, "me")
    agent.start()
    deadline = time.monotonic() + 60
    while host.capacity != 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert host.capacity == 3
    assert client.hget(keys.limit_key("few"), "total") == b"3"
    agent.stop()
    assert host.capacity == 0
    assert client.hget(keys.limit_key("few"), "total") == b"0"
    client.close()


def test_pause_without_a_server_is_a_typed_error() -> None:
    with pytest.raises(LedgerUnavailable, match="TIDEGATE_URL"):
        pause(redis.Redis(host="127.0.0.1", port=1), "api", 1)


def test_a_sleeping_agent_is_woken_by_the_batch_that_has_demand(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look again after an hour: only the worker's word, given with each batch, can wake it."""
    hour_ns = 3600 * 1_000_000_000
    for name in ("ACTIVE_POLL_NS", "IDLE_POLL_NS"):
        monkeypatch.setattr(keeper, name, hour_ns)
    gate = Tidegate(ledger_url)
    limits = [Limit("few", concurrency=2), Limit("host", concurrency=1, key=str)]

    @gate.task(limits=limits)
    def double(number: int) -> int:
        return 2 * number

    with InProcessWorker(gate):
        for _ in range(3):
            job = double.map(range(4))
            job.wait(timeout=60)
            assert sorted(value for _, value in job.results()) == [0, 2, 4, 6]
    gate.close()
