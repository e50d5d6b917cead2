"""The pytest plugin: fixtures with a private server, found by pytest when Tidegate is installed.

def test_prices(tidegate_server, tidegate_worker):
    with tidegate_worker("shop:gate"):
        job = shop.price.map(["a", "b"])
        assert job.wait(timeout=30).outcomes["succeeded"] == 2
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tidegate.embedded import EmbeddedServer
    from tidegate.testing.process import WorkerProcess


@pytest.fixture(scope="session")
def _tidegate_session_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    from tidegate.embedded import EmbeddedServer

    with EmbeddedServer(tmp_path_factory.mktemp("tidegate")) as server:
        yield server


@pytest.fixture
def tidegate_server(_tidegate_session_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> EmbeddedServer:
    """A private, empty Valkey; ``TIDEGATE_URL`` names it, so apps that configured nothing use it during the test."""
    with _tidegate_session_server.client() as client:
        client.flushall()
    monkeypatch.setenv("TIDEGATE_URL", _tidegate_session_server.url)
    return _tidegate_session_server


@pytest.fixture
def tidegate_worker(tidegate_server: EmbeddedServer) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts real workers: ``tidegate_worker("module:gate", processes=2, folder=…)``; they stop when the test ends."""
    from tidegate.testing.process import WorkerProcess

    started: list[WorkerProcess] = []

    def start(app: str, **options: Any) -> WorkerProcess:
        worker = WorkerProcess(app, tidegate_server.url, **options)
        started.append(worker)
        return worker.start()

    yield start
    for worker in started:
        worker.stop()
