"""Options that several commands share, and how they become an app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tidegate.app import Tidegate

Url = Annotated[
    str | None,
    typer.Option(
        "--url", help="Address of the ledger. Default: TIDEGATE_URL, then the embedded server.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or the id that it was submitted with.")]


def gate_for(url: str | None) -> Tidegate:
    """An app without tasks, for commands that only look at or steer jobs."""
    from tidegate.app import Tidegate

    return Tidegate(url)
