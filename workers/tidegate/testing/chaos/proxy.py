"""FaultProxy: stands between a Redis client and its server, and makes the faults that a network makes.

It understands the Redis protocol (RESP, https://valkey.io/topics/protocol/) just enough to see where one request ends, so
that a fault can be aimed at one call: lost on the way there, executed with the reply lost, delayed, or the moment at which
somebody is killed. Everything is counted, so that a test can prove that the fault happened.

Threads: one event loop in one daemon thread owns all state; rules are called there. ``calls`` and ``faults`` are plain
integers that other threads may read. Fork: a child must not use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from urllib.parse import urlsplit


class Fault(Enum):
    """What may happen to one call."""

    NONE = "none"
    REQUEST_LOST = "request lost"
    REPLY_LOST = "reply lost"
    DELAY = "delay"


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the proxy saw it. ``number`` counts script calls from 1, over all connections."""

    command: str
    argument: bytes
    number: int

    @property
    def is_script(self) -> bool:
        return self.command in ("EVALSHA", "EVAL", "FCALL")


Rule = Callable[[Call], Fault]
Hook = Callable[[Call], None]


def lose_replies(share: float, seed: int) -> Rule:
    """A rule that loses the reply of ``share`` (0 to 1) of all script calls, the same ones for the same seed."""
    random = Random(seed)
    return lambda call: Fault.REPLY_LOST if call.is_script and random.random() < share else Fault.NONE


def at_call(number: int, fault: Fault) -> Rule:
    """A rule that strikes script call ``number`` and no other."""
    return lambda call: fault if call.is_script and call.number == number else Fault.NONE


class FaultProxy:
    """Listens on a free loopback port and forwards to ``upstream`` (``redis://host:port`` or ``unix:///path``).

    ``rule`` decides the fate of each call; ``before`` and ``after`` are called for each script call, before the server
    sees it and once the server has answered it (the client has not got the answer yet): kill somebody there.

    Use as a context manager; ``url`` is what clients connect to.
    """

    def __init__(
        self, upstream: str, *, rule: Rule | None = None, before: Hook | None = None, after: Hook | None = None
    ) -> None:
        self._upstream = urlsplit(upstream)
        self.rule = rule or (lambda _call: Fault.NONE)
        self.before = before
        self.after = after
        self.calls = 0
        self.faults: Counter[Fault] = Counter()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)

    @property
    def url(self) -> str:
        credentials = ""
        if self._upstream.password:
            credentials = f"{self._upstream.username or ''}:{self._upstream.password}@"
        database = self._upstream.path if self._upstream.scheme.startswith("redis") else ""
        return f"redis://{credentials}127.0.0.1:{self.port}{database}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the fault proxy did not start listening within 10 s")
        return self

    def __exit__(self, *_exc: object) -> None:
        stop = self._stop
        if stop is not None:
            self._loop.call_soon_threadsafe(stop.set)
        self._thread.join(10)

    def cut(self) -> None:
        """Close every connection now."""
        self._loop.call_soon_threadsafe(self._cut)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, limit=1 << 24)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        self._cut()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cut(self) -> None:
        for writer in list(self._writers):
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._upstream.scheme == "unix":
            return await asyncio.open_unix_connection(self._upstream.path, limit=1 << 24)
        return await asyncio.open_connection(self._upstream.hostname, self._upstream.port or 6379, limit=1 << 24)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            up_reader, up_writer = await self._connect()
        except OSError:
            writer.close()
            self._writers.discard(writer)
            return
        link = _Link(self, reader, writer, up_reader, up_writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await link.run()
        for each in (writer, up_writer):
            each.close()
        self._writers.discard(writer)


class _Link:
    """One client connection and its connection to the server."""

    def __init__(
        self,
        proxy: FaultProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._up_reader, self._up_writer = up_reader, up_writer
        self._answer: asyncio.Future[None] | None = None
        self._decided = asyncio.Event()
        self._decided.set()
        self._swallow = False

    async def run(self) -> None:
        downstream = asyncio.ensure_future(self._pump_down())
        upstream = asyncio.ensure_future(self._pump_up())
        _done, pending = await asyncio.wait((downstream, upstream), return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(downstream, upstream, return_exceptions=True)

    async def _pump_down(self) -> None:
        """Server to client. While one call is being watched, its answer is held until the watcher has decided."""
        while data := await self._up_reader.read(1 << 16):
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(None)
            await self._decided.wait()
            if self._swallow:
                return
            self._writer.write(data)
            await self._writer.drain()

    async def _pump_up(self) -> None:
        while True:
            raw, words = await _read_request(self._reader)
            if not raw:
                return
            command = words[0].decode("latin-1").upper() if words else ""
            proxy = self._proxy
            script = command in ("EVALSHA", "EVAL", "FCALL")
            proxy.calls += script
            call = Call(command, words[1] if len(words) > 1 else b"", proxy.calls)
            if not await self._forward(call, raw):
                return

    async def _forward(self, call: Call, raw: bytes) -> bool:
        proxy = self._proxy
        fault = proxy.rule(call)
        if fault is not Fault.NONE:
            proxy.faults[fault] += 1
        if call.is_script and proxy.before:
            proxy.before(call)
        if fault is Fault.REQUEST_LOST:
            return False
        if fault is Fault.DELAY:
            await asyncio.sleep(0.05)
        watch = fault is Fault.REPLY_LOST or (call.is_script and proxy.after is not None)
        if watch:
            self._swallow = fault is Fault.REPLY_LOST
            self._answer = asyncio.get_running_loop().create_future()
            self._decided.clear()
        self._up_writer.write(raw)
        await self._up_writer.drain()
        if watch and self._answer is not None:
            await self._answer
            if call.is_script and proxy.after:
                proxy.after(call)
            self._decided.set()
        return fault is not Fault.REPLY_LOST


async def _read_request(reader: asyncio.StreamReader) -> tuple[bytes, Sequence[bytes]]:
    """One request: its bytes as they came, and its words. ``(b"", ())`` at the end of the stream."""
    head = await reader.readline()
    if not head.startswith(b"*"):
        return head, head.split()
    raw = [head]
    words = []
    for _ in range(int(head[1:])):
        size_line = await reader.readline()
        body = await reader.readexactly(int(size_line[1:]) + 2)
        raw += [size_line, body]
        words.append(body[:-2])
    return b"".join(raw), words
