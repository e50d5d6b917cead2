"""``tidegate down``: stop the embedded server."""

from __future__ import annotations

from tidegate.cli.options import Json
from tidegate.cli.output import print_json, say


def down(*, json: Json = False) -> None:
    """Stop the embedded server of this user. Its jobs are kept, and are there again when it is next started."""
    from tidegate.embedded import stop_shared
    from tidegate.settings import load_settings

    stopped = stop_shared(load_settings())
    if json:
        print_json({"stopped": stopped is not None, "pid": stopped.pid if stopped else None})
    elif stopped is None:
        say("no embedded server is running")
    else:
        say(f"stopped the embedded server (process {stopped.pid}); its jobs are kept in {stopped.directory}")
