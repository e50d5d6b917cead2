"""Fixtures of every test: a real Valkey, private to the pytest process, empty for each test that asks for it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings

from tidegate.embedded import EmbeddedServer, find_server

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


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Callable[[int | None, str], int]]:
    """``sentinel(port, password)`` watches the primary at that port, as ``main``; the port at which it answers.

    It takes a primary for lost that is silent for longer than a busy machine may keep it waiting.
    """
    with contextlib.ExitStack() as stack:

        def watch(primary_port: int | None, password: str) -> int:
            options = (
                f"bind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {primary_port} 1\n"
                f"sentinel auth-pass main {password}\n"
                "sentinel down-after-milliseconds main 2000\nsentinel failover-timeout main 6000\n"
            )
            while True:
                port = _free_port()
                config = tmp_path / f"sentinel-{port}.conf"
                config.write_text(f"port {port}\n{options}")
                command = [str(find_server()), str(config), "--sentinel"]
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                stack.callback(process.wait)
                stack.callback(process.kill)
                if _answers(port, process):
                    return port

        yield watch


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until it does. False: it has ended, because somebody took the port after we had looked."""
    with redis.Redis(port=port) as client:
        while process.poll() is None:
            with contextlib.suppress(redis.RedisError):
                return bool(client.ping())
            time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
