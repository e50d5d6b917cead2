"""``tidegate collector``: totals of all workers as metrics, JSON and a dashboard."""

from __future__ import annotations

import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.options import Url, gate_for
from tidegate.cli.output import print_json, say

if TYPE_CHECKING:
    from tidegate.app import Tidegate
    from tidegate.collector.web.server import WebServer


def collector(
    *,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. Default: 9464.", show_default=False)
    ] = None,
    allow_anybody: Annotated[
        bool,
        typer.Option("--allow-anybody", help="Listen beyond this machine without a token: the network is private."),
    ] = False,
    json_address: Annotated[
        bool, typer.Option("--json-address", help="Print the address as one JSON document, for scripts.")
    ] = False,
    url: Url = None,
) -> None:
    """Serve Prometheus metrics, a JSON API and the dashboard until stopped. Workers run without it just as well."""
    stop = _stop_on_signals()
    with serving(gate_for(url), host=host, port=port, allow_anybody=allow_anybody) as server:
        if json_address:
            print_json({"address": server.address, "metrics": f"{server.address}/metrics"})
        else:
            say(f"dashboard {server.address}  metrics {server.address}/metrics  (Ctrl-C stops it)")
        sys.stdout.flush()
        # Waiting in steps, because a signal handler only runs between two steps of the main thread.
        while not stop.wait(1.0):
            pass


@contextmanager
def serving(
    gate: Tidegate, *, host: str | None = None, port: int | None = None, allow_anybody: bool = False
) -> Iterator[WebServer]:
    """A collector with its web server, for as long as the block lasts. The server knows its ``address``.

    ``ConfigurationError`` when it may not or cannot listen there; ledger errors when the ledger cannot be reached.
    """
    from tidegate import report
    from tidegate.collector.service import Collector
    from tidegate.collector.source import StreamSource
    from tidegate.collector.web.server import WebServer
    from tidegate.ledger.checkpoint import Checkpoint

    settings = gate.settings
    token = settings.collector_token.get_secret_value() if settings.collector_token else None
    owner = f"{socket.gethostname()}-{secrets.token_hex(6)}"
    with (
        closing(StreamSource(gate.url)) as stream,
        closing(StreamSource(gate.url)) as telemetry,
        closing(Checkpoint(gate.url, owner)) as checkpoint,
    ):
        service = Collector(gate.ledger(), stream, checkpoint)
        server = WebServer(
            service,
            lambda job_id: report.build(gate.ledger(), job_id, telemetry, memory_soft=settings.memory_soft),
            host=host or settings.collector_host,
            port=settings.collector_port if port is None else port,
            token=token,
            allow_anybody=allow_anybody,
        )
        with closing_socket(server), service, server:
            yield server


@contextmanager
def closing_socket(server: WebServer) -> Iterator[None]:
    """The port is taken before anything starts, so it must be given back even when nothing did."""
    try:
        yield
    finally:
        server.stop()


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop
