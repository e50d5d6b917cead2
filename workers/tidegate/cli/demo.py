"""``tidegate demo``: two real workloads on this machine, from nothing to their reports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tidegate.cli.options import Json
from tidegate.cli.output import console, errors, print_json, say
from tidegate.errors import ConfigurationError

if TYPE_CHECKING:
    from tidegate.demo.run import Shown


def demo(
    *,
    json: Json = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Where the page goes. Default: tidegate-report.html.", show_default=False
        ),
    ] = None,
) -> None:
    """Run two real workloads on two worker processes of this machine and print their reports. Needs nothing running."""
    from tidegate.demo.run import run

    if html is not None and not html.absolute().parent.is_dir():
        raise ConfigurationError(
            f"{html} cannot be written: there is no such folder", remedy="name a file in a folder that exists"
        )
    progress: Console = errors if json else console
    try:
        shown = run(progress, page=html)
    except KeyboardInterrupt:
        errors.print("interrupted: every process has ended, nothing is left behind")
        raise typer.Exit(130) from None
    if json:
        print_json(shown.document())
    else:
        _tell(shown)
    if not shown.complete:
        raise typer.Exit(1)


def _tell(shown: Shown) -> None:
    for report in shown.reports.values():
        if console.is_terminal:
            console.print(report)
        else:
            sys.stdout.write(f"{report}\n")
    sources, served = shown.sources, shown.served
    say(
        f"sources: {sources['files']:,} files parsed, {sources['lines']:,} lines, {sources['functions']:,} functions, the "
        f"longest of {sources['longest_function_lines']:,} lines in {sources['longest_function_file']}"
    )
    for broken in sources["broken"]:
        say(f"  broken: {broken['file']}: {broken['error']} (attempts: {broken['attempts']})")
    say(
        f"crawl: {served.total():,} requests by the server's own count: {served.by_status.get(200, 0):,} answered, "
        f"{served.by_status.get(503, 0):,} times 503, {served.by_status.get(429, 0):,} times 429 (asked too fast)"
    )
    say(f"HTML report: {shown.page}")
