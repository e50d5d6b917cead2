"""Nothing is kept alive that has ended, and nothing falls when the interpreter leaves in the middle."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import weakref

import pytest

from tidegate.executor import _native


class Thing:
    """Something to refer to weakly."""


@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize("fails", [False, True])
def test_what_an_item_held_is_free_when_it_has_ended_without_a_collection(main, recorder, turns, fails):
    references = []

    async def item():
        thing = Thing()
        references.append(weakref.ref(thing))
        for _ in range(turns):
            await asyncio.sleep(0)
        if fails:
            raise ValueError
        return thing

    async def body():
        driver = recorder()
        for _ in range(20):
            await driver.outcome(item())
        assert [reference() for reference in references] == [None] * 20

    gc.collect()
    gc.disable()
    try:
        main(body)
    finally:
        gc.enable()


def test_pending_tasks_that_nobody_holds_are_collected(main):
    async def forever(thing):
        await asyncio.get_running_loop().create_future()

    async def body():
        references = []
        for _ in range(10):
            thing = Thing()
            references.append(weakref.ref(thing))
            task = _native.ItemTask(forever(thing))
            task._log_destroy_pending = False
            await asyncio.sleep(0)
            del task, thing
        gc.collect()
        assert [reference() for reference in references] == [None] * 10

    main(body)


def test_a_loop_and_its_spare_tasks_go_together(recorder):
    async def body():
        driver = recorder()
        for token in range(10):
            driver.step(asyncio.sleep(0), token)
        await driver.ended(10)
        await _native.gather(asyncio.sleep(0), asyncio.sleep(0))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(body())
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


def test_memory_does_not_grow(main, recorder):
    async def item(number):
        if number % 2:
            await asyncio.sleep(0)
        if number % 5 == 0:
            raise ValueError(number)
        if number % 7 == 0:
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

    async def wave(driver):
        for number in range(400):
            await driver.outcome(item(number))
            await _native.gather(item(number), item(number + 1), return_exceptions=True)

    async def body():
        driver = recorder()
        await wave(driver)
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(3):
            await wave(driver)
        gc.collect()
        assert sys.getallocatedblocks() - before < 400, "less than one block for three items"

    main(body)


STEP = "driver.step({}, contextvars.copy_context())"
EXITS = {
    "with tasks that wait": [STEP.format("forever()"), "await asyncio.sleep(0)", "sys.exit(0)"],
    "with a turn that is due": [STEP.format("asyncio.sleep(0)"), "sys.exit(0)"],
    "with a gather that waits": ["kept.append(_native.gather(forever(), forever()))", "sys.exit(0)"],
    "without a collection": ["gc.disable()", STEP.format("asyncio.sleep(0)"), "await asyncio.sleep(0)"],
    "with the loop kept": [
        "gc.disable()",
        "kept.append((driver, asyncio.get_running_loop()))",
        "await _native.gather(asyncio.sleep(0))",
    ],
}


@pytest.mark.parametrize("how", EXITS)
def test_the_interpreter_can_leave(how):
    program = f"""
        import asyncio, contextvars, gc, os, sys
        from tidegate.executor import _native
        kept = []
        async def forever():
            await asyncio.get_running_loop().create_future()
        async def main():
            driver = _native.Driver(lambda *end: None)
            kept.append(driver)
            {"; ".join(EXITS[how])}
        asyncio.run(main())
    """
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ran.returncode == 0, ran.stderr
