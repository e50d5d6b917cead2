"""The watched world, and collectors on it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tidegate.collector.service import Collector
from tidegate.collector.source import StreamSource
from tidegate.ledger.checkpoint import Checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from watched import World


@pytest.fixture
def world(ledger_url: str) -> Iterator[World]:
    with closing(World(ledger_url)) as made:
        yield made


@pytest.fixture
def make_collector(world: World) -> Iterator[Callable[..., Collector]]:
    """Collectors of their own connections; those still running at the end are stopped."""
    with ExitStack() as stack:

        def make(owner: str = "c1", *, save_s: float = 3600.0) -> Collector:
            stream = stack.enter_context(closing(StreamSource(world.url)))
            checkpoint = stack.enter_context(closing(Checkpoint(world.url, owner)))
            collector = Collector(world.ledger, stream, checkpoint, save_s=save_s, jobs_s=0.05)
            stack.callback(collector.stop)
            return collector

        yield make
