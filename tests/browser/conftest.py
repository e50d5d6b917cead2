"""A real headless Chromium on a real collector. Skipped, with a message, where there is no Chromium or no playwright."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tidegate import report
from tidegate.collector.service import Collector
from tidegate.collector.source import StreamSource
from tidegate.collector.web.server import WebServer
from tidegate.ledger.checkpoint import Checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "report"))

from watched import World

#: One patience for everything that is waited for: a browser on a busy machine takes its time.
PATIENCE_MS = 90_000

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser. It ends with its file: while it lives, its event loop counts as the running one of this thread, and
    whatever test of another file came next in this process could not run a loop of its own."""
    if CHROMIUM is None:
        pytest.skip("no Chromium (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'tidegate[test]'")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE_MS)
        yield browser
        browser.close()


@dataclass
class Watch:
    """What a page did that it must not do."""

    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Any]:
    """``open_page(url, **context options)`` gives the page and its watch."""
    contexts = []

    def open_(url: str, **options: Any) -> tuple[Any, Watch]:
        context = chromium.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page, watch = context.new_page(), Watch()

        def on_dialog(dialog: Any) -> None:
            watch.dialogs.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", on_dialog)
        page.on("request", lambda request: watch.requests.append(request.url))
        page.on("console", lambda message: watch.console.append(message.text))
        page.on("pageerror", lambda error: watch.errors.append(str(error)))
        page.goto(url)
        return page, watch

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture
def world(ledger_url: str) -> Iterator[World]:
    with closing(World(ledger_url)) as made:
        yield made


@pytest.fixture
def server(world: World) -> Iterator[WebServer]:
    """A running collector's web server."""
    with (
        closing(StreamSource(world.url)) as stream,
        closing(StreamSource(world.url)) as telemetry,
        closing(Checkpoint(world.url, "browser")) as checkpoint,
        Collector(world.ledger, stream, checkpoint, jobs_s=0.1) as collector,
        WebServer(collector, lambda job_id: report.build(world.ledger, job_id, telemetry), port=0) as running,
    ):
        yield running


@pytest.fixture
def address(server: WebServer) -> str:
    """Where it listens."""
    return server.address
