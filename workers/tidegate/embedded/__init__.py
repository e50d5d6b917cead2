"""A real Valkey without an install step: private ones for tests and the demo, one shared one per user."""

from tidegate.embedded.binary import find_server
from tidegate.embedded.owner import start_owned
from tidegate.embedded.server import EmbeddedServer
from tidegate.embedded.shared import SharedServer, find_shared, shared_server, state_folder, stop_shared

__all__ = [
    "EmbeddedServer",
    "SharedServer",
    "find_server",
    "find_shared",
    "shared_server",
    "start_owned",
    "state_folder",
    "stop_shared",
]
