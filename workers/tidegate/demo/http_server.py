"""The server that the demo crawls: slow at times, out of order at times, and strict about its rate limit."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(slots=True)
class Served:
    """What the server counted, by itself."""

    by_status: dict[int, int] = field(default_factory=dict)
    slow: int = 0

    def total(self) -> int:
        """Requests in all."""
        return sum(self.by_status.values())


class DemoServer:
    """An HTTP server on a free loopback port, in a thread. Use it with ``with``; ``served`` counts while it runs.

    ``rate``, ``burst``: requests a second that it answers, beyond that it says ``429`` and ``Retry-After``.
    ``broken``: share of requests that get a ``503``. One in fifty takes a second, one in four hundred takes four.
    """

    def __init__(self, *, rate: float, burst: int, broken: float = 0.05, seed: int = 7) -> None:
        self.served = Served()
        self.port = 0
        self._interval_s = 1 / rate
        self._tolerance_s = (burst - 1) / rate
        self._broken = broken
        self._random = random.Random(seed)
        self._next_s = 0.0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="tidegate-demo-server", daemon=True)

    @property
    def address(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        # asyncio.run cancels the answers that are still being thought about.

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not await reader.readuntil(b"\r\n\r\n"):
                return
            status, extra, body = self._decide()
            self.served.by_status[status] = self.served.by_status.get(status, 0) + 1
            if status == 200:
                await asyncio.sleep(self._think_s())
            head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\n{extra}Connection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client gave up, as it may; or the server stops, and asyncio would complain of its own tasks
        finally:
            writer.close()

    def _decide(self) -> tuple[int, str, bytes]:
        now = asyncio.get_running_loop().time()
        due = max(self._next_s, now - self._tolerance_s)
        if due > now:
            return 429, "Retry-After: 1\r\n", b"slow down"
        self._next_s = due + self._interval_s
        if self._random.random() < self._broken:
            return 503, "", b"not now"
        return 200, "", b"x" * self._random.randrange(200, 4000)

    def _think_s(self) -> float:
        luck = self._random.random()
        if luck < 1 / 400:
            self.served.slow += 1
            return 4.0
        if luck < 1 / 50:
            self.served.slow += 1
            return 1.0
        return self._random.uniform(0.01, 0.15)
