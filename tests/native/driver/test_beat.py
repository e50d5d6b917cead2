"""The loop is kept punctual while very many tasks end, and only then."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

import pytest

descriptors = Path("/proc/self/fd")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is a timerfd")


async def waits() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await future


async def flood(driver) -> None:
    """Ends until it beats: on a machine that is busy with other things it takes a while until enough of them are close."""
    tokens = itertools.count()
    while not driver.driver.beats:  # the test's timeout ends it if it never does
        for token in itertools.islice(tokens, 64):
            driver.step(waits(), token)
        await driver.ended(token + 1)


def test_a_flood_of_ends_starts_it_and_silence_stops_it(main, recorder):
    async def body():
        driver = recorder()
        assert not driver.driver.beats
        await flood(driver)
        assert driver.driver.beats
        while driver.driver.beats:  # the test's timeout ends it if the beat does not
            await asyncio.sleep(0.001)

    main(body)


def test_it_goes_with_the_last_driver_and_leaves_no_descriptor(main, recorder):
    async def body():
        await flood(recorder())
        before = set(descriptors.iterdir())
        driver = recorder()
        await flood(driver)
        assert driver.driver.beats
        del driver
        await asyncio.sleep(0)
        new = [str(path.readlink()) for path in set(descriptors.iterdir()) - before if path.is_symlink()]
        assert not any("timerfd" in link for link in new), new

    main(body)


def test_a_loop_may_close_while_it_beats(main, recorder):
    kept = []

    async def body():
        driver = recorder()
        await flood(driver)
        assert driver.driver.beats
        kept.append(driver)

    main(body)
    kept.clear()
