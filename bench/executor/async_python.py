"""One run of one Python contender in a fresh process: prints a JSON object with the seconds of the first and the second time.

Called by async_bench.py.

python async_python.py CONTENDER WORK N CONCURRENCY
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from async_work import STEPS, Step, doxbee, parallel

Contender = Callable[[str, int, int], Awaitable[float]]
TIMEOUT_S = 10.0


def make(work: str, gather: Any) -> tuple[Step, str]:
    """``work`` is a step ("ready"), or "doxbee-tick-seq", "parallel-ready-seq", "doxbee-turn-conc"."""
    if "-" not in work:
        return STEPS[work], "limited"
    shape, step, order = work.split("-")
    return (doxbee(STEPS[step]) if shape == "doxbee" else parallel(STEPS[step], gather)), order


async def hand_written(work: str, n: int, concurrency: int, timeout: bool = True) -> float:
    """gather with a semaphore and wait_for: what one writes with asyncio alone."""
    function, order = make(work, asyncio.gather)
    semaphore = asyncio.Semaphore(concurrency)

    async def limited(value: int) -> int:
        async with semaphore:
            return await (asyncio.wait_for(function(value), TIMEOUT_S) if timeout else function(value))

    began = time.perf_counter()
    if order == "seq":
        for value in range(n):
            await function(value)
    elif order == "conc":
        await asyncio.gather(*[function(value) for value in range(n)])
    else:
        assert len(await asyncio.gather(*[limited(value) for value in range(n)])) == n
    return time.perf_counter() - began


async def no_timeout(work: str, n: int, concurrency: int) -> float:
    return await hand_written(work, n, concurrency, timeout=False)


async def bare_gather(work: str, n: int, _concurrency: int) -> float:
    function, _ = make(work, asyncio.gather)
    began = time.perf_counter()
    await asyncio.gather(*[function(value) for value in range(n)])
    return time.perf_counter() - began


async def aiometer_(work: str, n: int, concurrency: int) -> float:
    import aiometer  # type: ignore[import-not-found]

    function, _ = make(work, asyncio.gather)
    began = time.perf_counter()
    await aiometer.run_on_each(function, list(range(n)), max_at_once=concurrency)
    return time.perf_counter() - began


async def tidegate(work: str, n: int, concurrency: int, own: Step | None = None) -> float:
    """The executor with its limit, timeout, retry policy and statistics on. seq is a limit of one."""
    from tidegate.executor.executor import Executor
    from tidegate.model.retry import Retry

    gather = tidegate_gather()
    function, order = make(work, gather)
    function = own or function
    items = list(range(n))
    limit = {"seq": 1, "conc": n}.get(order, concurrency)
    with Executor(concurrency=limit, timeout=TIMEOUT_S, retry=Retry(attempts=3)) as executor:
        await executor.amap(function, items[:10])
        began = time.perf_counter()
        outcomes = await executor.amap(function, items)
        took = time.perf_counter() - began
        assert len(outcomes.values) == n
    return took


async def tidegate_sleep(work: str, n: int, concurrency: int) -> float:
    """The executor, with items that sleep by its own means."""
    from tidegate.executor import sleep

    assert work == "sleep"

    async def sleep_10ms(value: int) -> int:
        await sleep(0.01)
        return value

    return await tidegate(work, n, concurrency, sleep_10ms)


async def tidegate_plain(work: str, n: int, _concurrency: int) -> float:
    """seq and conc without the executor's limits: tidegate's gather; for seq of one coroutine, which the driver then steps."""
    gather = tidegate_gather()
    function, order = make(work, gather)

    async def in_sequence() -> None:
        for value in range(n):
            await function(value)

    began = time.perf_counter()
    if order == "seq":
        await gather(in_sequence())
    else:
        await gather(*[function(value) for value in range(n)])
    return time.perf_counter() - began


def tidegate_gather() -> Any:
    from tidegate.executor import _native

    return _native.gather


CONTENDERS: dict[str, Contender] = {
    "gather+semaphore+wait_for": hand_written,
    "gather+semaphore": no_timeout,
    "gather": bare_gather,
    "aiometer": aiometer_,
    "tidegate": tidegate,
    "tidegate.sleep": tidegate_sleep,
    "tidegate.gather": tidegate_plain,
}


def main() -> None:
    name, work, n, concurrency = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    contender, loop = name.split("@")
    if loop == "uvloop":
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    else:
        runner = asyncio.Runner()
    gc.collect()
    with runner:
        seconds = [runner.run(CONTENDERS[contender](work, n, concurrency)) for _ in range(2)]
    print(json.dumps({"items": n, "seconds": seconds}))


if __name__ == "__main__":
    main()
