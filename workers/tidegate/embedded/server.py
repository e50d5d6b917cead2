"""One embedded server: a Valkey process on a private socket (or a loopback port with a password) and its life.

The configuration goes in through standard input, so that the password stands neither in a file nor in the process list.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from tidegate.embedded.binary import find_server
from tidegate.embedded.owner import start_owned
from tidegate.errors import ConfigurationError, LedgerUnavailable

#: The kernel's limit is 107 bytes; the server opens a temporary name beside it.
_LONGEST_SOCKET_PATH = 100
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0


class EmbeddedServer:
    """A private Valkey in ``directory``. Start it with ``start()`` or ``with``; starting and stopping may be repeated.

    ``persist``: keep an append-only file in ``directory`` and read it again at the next start. ``port``: ``None`` for a
    unix socket that only this user can open, ``0`` for any free loopback port, or that port; a port gets a random
    password. ``max_memory_bytes``: what the server may use (0: no bound); nothing is ever evicted, writes are refused
    instead. ``die_with_owner``: stop when this process dies, however it dies.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, EmbeddedServer(folder) as server:
    ...     server.client().ping()
    True
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        persist: bool = False,
        port: int | None = None,
        max_memory_bytes: int = 0,
        die_with_owner: bool = True,
    ) -> None:
        self.directory = Path(directory).absolute()
        self.persist = persist
        self.max_memory_bytes = max_memory_bytes
        self._wanted_port = port
        self._die_with_owner = die_with_owner
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """``unix:///…`` or ``redis://:password@127.0.0.1:port/0``; ``ConfigurationError`` before the first start."""
        if not self._url:
            raise ConfigurationError("the embedded server was not started", remedy="call start() first")
        return self._url

    @property
    def pid(self) -> int:
        """Process id, 0 while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.directory / "valkey.log"

    def client(self, **options: Any) -> redis.Redis:
        """A new client of this server."""
        client: redis.Redis = redis.Redis.from_url(self.url, **options)
        return client

    def start(self) -> EmbeddedServer:
        """Start and wait until it answers. ``LedgerUnavailable`` with the server's last words when it does not."""
        if self.pid:
            return self
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for tries_left in (2, 1, 0):
            config = self._configuration()
            self._process = self._spawn(config)
            try:
                self._wait_ready()
            except LedgerUnavailable:
                self.kill()
                # Only a free port that somebody took between our look and the server's bind is worth another try.
                if self._wanted_port != 0 or not tries_left:
                    self.stop()
                    raise
            else:
                break
        return self

    def stop(self) -> None:
        """Ask it to end (an append-only file is completed), insist after 10 s, and remove the socket."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)
        self.kill()
        self._process = None
        if self._socket_folder is not None and self._socket_folder != self.directory:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
        else:
            (self.directory / "valkey.sock").unlink(missing_ok=True)
        self._socket_folder = None

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._process is not None:
            self._process.wait()

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _configuration(self) -> str:
        lines = [
            f"dir {_quoted(self.directory)}",
            f"logfile {_quoted(self.log)}",
            "daemonize no",
            'save ""',
            f"appendonly {'yes' if self.persist else 'no'}",
            "appendfsync everysec",
            "maxmemory-policy noeviction",
            f"maxmemory {self.max_memory_bytes}",
        ]
        if self._wanted_port is None:
            path = self._socket_path()
            lines += ["port 0", f"unixsocket {_quoted(path)}", "unixsocketperm 700"]
            self._url = f"unix://{path}"
        else:
            port = self._wanted_port or _free_port()
            password = secrets.token_urlsafe(24)
            lines += ["bind 127.0.0.1", f"port {port}", f"requirepass {password}"]
            self._url = f"redis://:{password}@127.0.0.1:{port}/0"
        return "\n".join(lines) + "\n"

    def _socket_path(self) -> Path:
        if self._socket_folder is None:
            fits = len(os.fsencode(self.directory / "valkey.sock")) <= _LONGEST_SOCKET_PATH
            # mkdtemp makes a private folder (0700); TMPDIR itself may be what is too long.
            self._socket_folder = self.directory if fits else Path(tempfile.mkdtemp(prefix="tg-", dir="/tmp"))
        path = self._socket_folder / "valkey.sock"
        path.unlink(missing_ok=True)
        return path

    def _spawn(self, config: str) -> subprocess.Popen[bytes]:
        command = [str(find_server()), "-"]
        if self._die_with_owner:
            return start_owned(command, lambda owned: _start(owned, config))
        return _start(command, config)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        process = self._process
        assert process is not None
        with contextlib.closing(self.client(socket_timeout=2.0)) as client:
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    if client.ping():
                        return
                except (redis.ConnectionError, redis.TimeoutError):
                    pass  # not listening yet, or still reading its append-only file
                time.sleep(0.005)  # the server offers no event to wait for
        raise LedgerUnavailable(
            f"the embedded server did not start in {self.directory}: {_last_words(self.log)}",
            remedy="see its valkey.log there, or set TIDEGATE_URL to a server of your own",
        )


def _start(command: Sequence[str], config: str) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C in the terminal must not take the server away before its owner has tidied up.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(config.encode())
        process.stdin.close()
    return process


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it left no log"
