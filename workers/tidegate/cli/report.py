"""``tidegate report``: what happened to a job, and what to change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.options import JobId, Json, Url, gate_for
from tidegate.cli.output import console, errors
from tidegate.errors import ConfigurationError


def report(
    job: JobId,
    *,
    json: Json = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page that stands alone; - for standard output."),
    ] = None,
    url: Url = None,
) -> None:
    """Print the report of a job, ended or not: totals, times, workers, errors, and findings that say what to change."""
    if json and html is not None:
        raise ConfigurationError("--json and --html were both given", remedy="use one of the two")
    made = gate_for(url).job(job).report()
    if json:
        sys.stdout.write(made.to_json(indent=2) + "\n")
    elif html is not None:
        _write(html, made.to_html())
    elif console.is_terminal:
        console.print(made)
    else:
        sys.stdout.write(f"{made}\n")


def _write(file: Path, page: str) -> None:
    if str(file) == "-":
        sys.stdout.write(page)
        return
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be written: {error.strerror}", remedy="name a file in a folder that exists and is yours"
        ) from None
    errors.print(f"wrote {file.absolute()}", markup=False, soft_wrap=True)
