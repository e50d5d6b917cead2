"""``tidegate jobs``: what there is, and how far it is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tidegate.cli.options import Json, Url, gate_for
from tidegate.cli.output import console, print_json, printable, progress_document, say
from tidegate.model.job import Progress
from tidegate.model.outcome import Outcome


def jobs(
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the newest first.")] = 20,
    json: Json = False,
    url: Url = None,
) -> None:
    """List the newest jobs and how they stand."""
    found = gate_for(url).jobs(limit)
    if json:
        print_json([progress_document(stands) for stands in found])
    elif not found:
        say("no jobs: submit one with `tidegate submit MODULE:TASK FILE`")
    else:
        console.print(_table(found))


def _table(found: list[Progress]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("JOB", "TASK", "STATE"):
        table.add_column(name, no_wrap=name == "JOB")
    for name in ("ITEMS", "DONE", "FAILED", "PENDING", "AGE"):
        table.add_column(name, justify="right", no_wrap=True)
    for stands in found:
        failed = stands.done - stands.outcomes.get(Outcome.SUCCEEDED, 0)
        table.add_row(
            stands.job_id,
            Text(printable(stands.task)),
            "paused" if stands.paused and not stands.ended else stands.state.value,
            f"{stands.total:,}",
            f"{stands.done:,}",
            f"[red]{failed:,}[/red]" if failed else "0",
            f"{stands.pending:,}",
            _age(stands.now_ms - stands.created_ms),
        )
    return table


def _age(milliseconds: int) -> str:
    seconds = max(0, milliseconds // 1000)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
