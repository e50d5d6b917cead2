"""anyio and httpx on top of the driver's tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

anyio = pytest.importorskip("anyio")


def test_anyio_cancel_scopes_expire(main, recorder):
    async def item():
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep_forever()
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            await anyio.sleep_forever()
        return scope.cancelled_caught, asyncio.current_task().cancelling()

    async def body():
        assert await recorder().outcome(item()) == ((True, 0), False)

    main(body)


def test_anyio_scopes_in_an_item_that_does_not_wait(main, recorder):
    async def item(number):
        with anyio.CancelScope() as scope:
            scope.cancel()
        return number, anyio.get_current_task().has_pending_cancellation()

    async def body():
        driver = recorder()
        for number in range(3):
            assert driver.step(item(number)) == ("returned", (number, False))

    main(body)


def test_anyio_task_groups_streams_and_threads(main, recorder):
    async def item():
        sender, receiver = anyio.create_memory_object_stream[int](2)
        received = []

        async def consume():
            async with receiver:
                async for number in receiver:
                    received.append(number)

        async with anyio.create_task_group() as group, sender:
            group.start_soon(consume)
            for number in range(5):
                await sender.send(number)
            await sender.send(await anyio.to_thread.run_sync(lambda: 5))
            await sender.aclose()
        return received

    async def body():
        assert await recorder().outcome(item()) == ([0, 1, 2, 3, 4, 5], False)

    main(body)


def test_anyio_delivers_a_cancellation_to_a_shielded_part_later(main, recorder):
    async def item():
        order = []
        with anyio.move_on_after(0.001):
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.005)
                order.append("shielded part ended")
            await anyio.sleep_forever()
        return order

    async def body():
        assert await recorder().outcome(item()) == (["shielded part ended"], False)

    main(body)


@asynccontextmanager
async def web_server(silent: Callable[[], None] | None = None) -> AsyncIterator[str]:
    """Says hello; or, with ``silent``, calls it when a request is there, and says nothing until the client hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if silent is not None:
            silent()
            await reader.read()  # until the client hangs up
            hung_up.set()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            await writer.drain()
        writer.close()

    hung_up = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}/"
        if silent is not None:
            await hung_up.wait()


def test_httpx_fetches(main, recorder):
    httpx = pytest.importorskip("httpx")

    async def body():
        async with web_server() as url, httpx.AsyncClient(trust_env=False, timeout=None) as client:

            async def fetch():
                return (await client.get(url)).text

            driver = recorder()
            for token in range(10):
                driver.step(fetch(), token)
            assert await driver.ended(10) == dict.fromkeys(range(10), ("hello", False))

    main(body)


def test_httpx_is_cancelled_by_a_timeout_around_it(main, recorder):
    httpx = pytest.importorskip("httpx")

    async def body():
        patience = asyncio.timeout(None)

        def run_out():  # once the request is there: earlier, on a slow machine, nobody would have asked anything yet
            patience.reschedule(asyncio.get_running_loop().time())

        async with web_server(silent=run_out) as url, httpx.AsyncClient(trust_env=False, timeout=None) as client:

            async def fetch():
                async with patience:
                    await client.get(url)

            error, raised = await recorder().outcome(fetch())
            assert raised
            assert isinstance(error, TimeoutError)

    main(body)
