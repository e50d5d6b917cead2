"""The watched world on an empty server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from watched import World


@pytest.fixture
def world(ledger_url: str) -> Iterator[World]:
    made = World(ledger_url)
    yield made
    made.close()
