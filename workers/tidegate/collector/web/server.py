"""WebServer: the pages on a socket, in a thread. It refuses to be open to the network by accident."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Self

import uvicorn

from tidegate.collector.service import Collector
from tidegate.collector.web.app import build_app
from tidegate.collector.web.guard import LOOPBACK_NAMES
from tidegate.collector.web.reports import ReportView
from tidegate.errors import ConfigurationError

_START_S = 10.0
_STOP_S = 10.0


class WebServer:
    """Serves until ``stop``. ``port`` 0 takes a free one; ``address`` says which. Use it with ``with``.

    On loopback anybody on this machine may read. Elsewhere a ``token`` is needed, or ``allow_anybody``;
    ``ConfigurationError`` otherwise, and when the address cannot be listened on.
    """

    def __init__(
        self,
        collector: Collector,
        reports: Callable[[str], ReportView],
        *,
        host: str = "127.0.0.1",
        port: int = 9464,
        token: str | None = None,
        allow_anybody: bool = False,
    ) -> None:
        loopback = is_loopback(host)
        if not loopback and not token and not allow_anybody:
            raise ConfigurationError(
                f"the collector would be open to the network at {host}",
                remedy="set TIDEGATE_COLLECTOR_TOKEN, or pass --allow-anybody where the network itself is private",
            )
        names = LOOPBACK_NAMES | {host.lower()} if loopback and not token else None
        guard, self._pages = build_app(collector, reports, token=token, names=names)
        self._socket = _listen(host, port)
        name = f"[{host}]" if ":" in host else host
        self.address = f"http://{name}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            guard,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            date_header=True,
            limit_concurrency=256,
            timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=32 << 10,
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen in a thread; returns when requests are answered."""
        self._thread = threading.Thread(target=self._run, name="tidegate-web", daemon=True)
        self._thread.start()
        started = threading.Event()
        for _ in range(int(_START_S / 0.02)):
            if self._server.started or not self._thread.is_alive():
                break
            started.wait(0.02)
        if not self._server.started:
            raise ConfigurationError(f"the collector did not start at {self.address}", remedy="see the log above")

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End live pages, answer what is under way, close the socket. May be repeated."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._server.should_exit = True
            self._pages.stop()
            thread.join(_STOP_S)
        self._socket.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"the collector cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}",
            remedy="choose another --port (0: any free one) or --host",
        ) from None
    return listening
