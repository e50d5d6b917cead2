"""Sites, and where their module is found: under a name of its own, for other folders have a conftest too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from worker_site import Site

from tidegate.embedded import EmbeddedServer


@pytest.fixture
def site(ledger_url: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(ledger_url, tmp_path)
    yield made
    made.close()


@pytest.fixture
def fragile_site(own_server: EmbeddedServer, tmp_path: Path) -> Iterator[tuple[Site, EmbeddedServer]]:
    """A site whose server may be killed and started again."""
    made = Site(own_server.url, tmp_path)
    yield made, own_server
    made.close()
