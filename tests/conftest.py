"""Fixtures of every test: a real Valkey, private to the pytest process, empty for each test that asks for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tidegate.embedded import EmbeddedServer

# Whether an example passes must not depend on how fast it ran, nor whether a run passes on which examples it drew: they are
# the same each time. `--hypothesis-profile=explore` draws others.
settings.register_profile(
    "same", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", settings.get_profile("same"), derandomize=False)
settings.load_profile("same")


@pytest.fixture(autouse=True, scope="session")
def _nothing_configured() -> None:
    """The developer's own TIDEGATE_* settings must not decide what a test sees."""
    for name in [name for name in os.environ if name.startswith("TIDEGATE_")]:
        del os.environ[name]
    # Tests start programs in other folders: a relative path to the sources would not lead there.
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.pathsep.join(
            str(Path(part).absolute()) for part in os.environ["PYTHONPATH"].split(os.pathsep) if part
        )


@pytest.fixture(autouse=True, scope="session")
def _interrupts_arrive() -> None:
    """A shell starts what runs in its background with SIGINT ignored, and children inherit that: no Ctrl-C would reach them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One private server for the whole pytest process (one per xdist worker): ``valkey.url``, ``valkey.client()``."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def ledger_url(valkey: EmbeddedServer) -> str:
    """The address of a server that holds nothing yet."""
    client = valkey.client()
    client.flushall()
    client.close()
    return valkey.url


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that the test may stop, kill, restart or reconfigure."""
    with EmbeddedServer(tmp_path / "valkey", persist=True) as server:
        yield server
