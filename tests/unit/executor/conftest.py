"""Fixtures of the executor's tests: a host or an executor that is closed, and that left nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tidegate.executor.executor import Executor
from tidegate.executor.host import Host

PATIENCE_S = 60.0


@pytest.fixture
def host() -> Iterator[Host]:
    before = set(threading.enumerate())
    made = Host(name="test")
    yield made
    assert made.close(timeout_s=PATIENCE_S)
    assert set(threading.enumerate()) <= before


@pytest.fixture
def executors() -> Iterator[Callable[..., Executor]]:
    """Makes executors; checks at the end that closing them leaves no thread behind."""
    before = set(threading.enumerate())
    made: list[Executor] = []

    def make(concurrency: int = 16, **options: object) -> Executor:
        made.append(Executor(concurrency, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for executor in made:
        assert executor.close(timeout_s=PATIENCE_S)
    assert set(threading.enumerate()) <= before
