"""The one server of a user who configured none: the first process that needs it starts it, the others find it.

``server.json`` in the state folder says where it listens; a lock file makes starting and stopping exclusive. The folder
is private (0700) and must belong to the user: whoever can write there decides where the jobs go.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from tidegate.embedded.server import EmbeddedServer
from tidegate.errors import ConfigurationError, LedgerUnavailable
from tidegate.settings import Settings

_STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class SharedServer:
    """Where the user's server listens, its process id, and whether this call started it."""

    url: str
    pid: int
    directory: Path
    started: bool = False


def state_folder(settings: Settings) -> Path:
    """``settings.state_dir``, else ``$XDG_STATE_HOME/tidegate``, else ``~/.local/state/tidegate``; made private."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = (settings.state_dir or Path(home) / "tidegate").expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        facts = folder.stat()
    except OSError as error:
        raise ConfigurationError(
            f"the state folder {folder} cannot be used: {error.strerror}",
            remedy="set TIDEGATE_STATE_DIR to a folder of yours, or TIDEGATE_URL to a server",
        ) from error
    if facts.st_uid != os.getuid():
        raise ConfigurationError(
            f"the state folder {folder} belongs to another user", remedy="set TIDEGATE_STATE_DIR to a folder of yours"
        )
    if facts.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def shared_server(settings: Settings) -> SharedServer:
    """The user's server, started now if none answers. It outlives this process; ``stop_shared`` ends it."""
    folder = state_folder(settings)
    found = _find(folder)
    if found:
        return found
    with _exclusive(folder):
        found = _find(folder)  # somebody else may have started it while this process waited for the lock
        if found:
            return found
        server = EmbeddedServer(
            folder / "valkey",
            persist=True,
            die_with_owner=False,
            # A bound of its own: a job must meet a typed error, not the machine's out-of-memory killer.
            max_memory_bytes=max(256 << 20, psutil.virtual_memory().total // 4),
        ).start()
        record = {"url": server.url, "pid": server.pid}
        fresh = folder / "server.json.new"
        fresh.write_text(json.dumps(record))
        fresh.replace(folder / "server.json")
        return SharedServer(server.url, server.pid, folder, started=True)


def find_shared(settings: Settings) -> SharedServer | None:
    """The user's server if it answers; nothing is started."""
    return _find(state_folder(settings))


def stop_shared(settings: Settings) -> SharedServer | None:
    """Stop the user's server, its append-only file completed. Returns what was stopped, ``None`` when none ran."""
    folder = state_folder(settings)
    with _exclusive(folder):
        found = _find(folder)
        if found is None:
            return None
        # Asked through its own socket, never by process id: an id may belong to something else by now.
        with contextlib.closing(_client(found.url)) as client, contextlib.suppress(redis.ConnectionError):
            client.shutdown(nosave=True)
        _wait_gone(found)
        (folder / "server.json").unlink(missing_ok=True)
        return found


def _find(folder: Path) -> SharedServer | None:
    try:
        record = json.loads((folder / "server.json").read_text())
        url, pid = str(record["url"]), int(record["pid"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    with contextlib.closing(_client(url)) as client:
        try:
            client.ping()
        except redis.BusyLoadingError:
            pass  # it reads its append-only file; who uses it waits
        except (redis.ConnectionError, redis.TimeoutError):
            return None
    return SharedServer(url, pid, folder)


def _client(url: str) -> redis.Redis:
    client: redis.Redis = redis.Redis.from_url(url, socket_timeout=5.0)
    return client


def _wait_gone(server: SharedServer) -> None:
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while _find(server.directory) is not None or _runs_server(server.pid):
        if time.monotonic() > deadline:
            raise LedgerUnavailable(
                f"the embedded server (process {server.pid}) did not stop within {_STOP_TIMEOUT_S:g} s",
                remedy=f"see {server.directory / 'valkey' / 'valkey.log'}",
            )
        time.sleep(0.02)  # another process's child gives no event


def _runs_server(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return "-server" in process.name() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    with (folder / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
