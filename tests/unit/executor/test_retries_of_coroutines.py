"""Coroutines that wait for their next attempt get it: one timer serves them all, on every loop."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tidegate.executor.host import Host
from tidegate.model.outcome import Outcome
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry

PATIENCE_S = 60.0


@pytest.mark.parametrize("rate_per_s", [None, 500.0], ids=["no limit", "a rate"])
def test_every_retry_starts_also_when_the_loop_fires_its_timer_early(host: Host, rate_per_s: float | None) -> None:
    """Loops that count in milliseconds fire a timer up to one too early. That must not be taken for its turn."""
    seen: Counter[int] = Counter()

    async def fails_twice(number: int) -> int:
        await asyncio.sleep(0.001)
        seen[number] += 1
        if seen[number] <= 2:
            raise RuntimeError("again")
        return number

    limits = [host.limit("rate", rate_per_s=rate_per_s, burst=10)] if rate_per_s else []
    retry = Retry(attempts=3, base=0.02, cap=0.05)
    lane = host.lane("retried", fails_twice, TaskPolicy(concurrency=20, timeout=20, retry=retry), limits=limits)
    for _ in range(10):
        seen.clear()
        run = lane.start(list(range(20)))
        assert run.wait(PATIENCE_S), "an item that waits for its next attempt is forgotten"
        assert run.take().outcomes == {Outcome.SUCCEEDED: 20}
