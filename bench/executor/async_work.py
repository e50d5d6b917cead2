"""The work of the async benchmarks: what one item does, the same words in async_node.mjs.

An item is ready (never suspends), ticks (resumes in the loop's next turn: once by a bare yield, or through a future that a
callback completes, as I/O does) or sleeps. doxbee and parallel follow the ideas of V8's promise benchmarks: ten awaits in a
row, and fans of 25 calls gathered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Step = Callable[[int], Awaitable[int]]
Gather = Callable[..., Awaitable[list[Any]]]


async def ready(value: int) -> int:
    return value


async def turn(value: int) -> int:
    """Suspends once with a bare yield."""
    await asyncio.sleep(0)
    return value


async def tick(value: int) -> int:
    """Suspends once on a future that a callback of the loop completes."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()
    loop.call_soon(future.set_result, value)
    return await future


async def sleep_10ms(value: int) -> int:
    await asyncio.sleep(0.01)
    return value


def doxbee(step: Step) -> Step:
    """One item: ten steps awaited one after the other."""

    async def ten(value: int) -> int:
        value = await step(value)
        value = await step(value)
        value = await step(value)
        value = await step(value)
        value = await step(value)
        value = await step(value)
        value = await step(value)
        value = await step(value)
        value = await step(value)
        return await step(value)

    return ten


def parallel(step: Step, gather: Gather) -> Step:
    """One item: 25 steps gathered."""

    async def fan(value: int) -> int:
        results = await gather(*[step(n) for n in range(25)])
        return len(results)

    return fan


STEPS: dict[str, Step] = {"ready": ready, "turn": turn, "tick": tick, "sleep": sleep_10ms}
