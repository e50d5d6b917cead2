"""``tidegate submit``: a file (or standard input) becomes a job."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from tidegate.cli.apps import load_task
from tidegate.cli.items import format_of, opened, read_items
from tidegate.cli.options import Json
from tidegate.cli.output import errors, exit_code, one_line, print_json, progress_document, say
from tidegate.errors import JobFailed
from tidegate.job import Job
from tidegate.model.job import Origin, Progress
from tidegate.model.outcome import JobState
from tidegate.model.wire import Shape
from tidegate.producer.drive import drive
from tidegate.progress import show_progress
from tidegate.task import MapOptions


def submit(
    task: Annotated[str, typer.Argument(metavar="MODULE:TASK", help="The task, as Python would import it.")],
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="NDJSON, CSV with a header, plain lines; - for standard input.")
    ],
    *,
    format_: Annotated[
        str | None, typer.Option("--format", help="ndjson, csv or lines. Default: by the file's name.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Use this column (CSV) or key (NDJSON) as the item.")] = None,
    star: Annotated[bool, typer.Option("--star", help="Each item is a list of arguments.")] = False,
    submission_id: Annotated[
        str | None, typer.Option("--id", help="Submission id: the same id again resumes, and never submits twice.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Items a batch. Default: adapts.")] = None,
    queue: Annotated[str | None, typer.Option(help="Queue of its tickets. Default: the task's.")] = None,
    durable: Annotated[
        bool, typer.Option("--durable", help="Confirm only when all of it is on the server's disk.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end with a progress bar; exit 1 if an item fails.")
    ] = False,
    json: Json = False,
) -> None:
    """Submit a job: the task is applied to every item of a file."""
    found = load_task(task)
    kind = format_of(file, format_)
    chosen: dict[str, Any] = {"id": submission_id, "batch_size": batch_size, "queue": queue}
    chosen["durable"] = "fsync" if durable else None
    options = MapOptions(**{key: value for key, value in chosen.items() if value is not None})  # type: ignore[typeddict-item]
    with opened(file) as stream:
        items = read_items(stream, "standard input" if file == "-" else file, kind, column)
        origin = Origin(file=file if file == "-" else str(Path(file).absolute()), function="tidegate submit")
        submission = found.gate.submission(found, Shape.STAR if star else Shape.ONE, None, options, origin)
        job = found.gate.submitted(drive(submission, items))
    stands = _wait(job, quiet=json) if wait else job.progress()
    if json:
        print_json(progress_document(stands))
    else:
        say(one_line(stands))
    if wait:
        raise typer.Exit(exit_code(stands))


def _wait(job: Job[Any], *, quiet: bool) -> Progress:
    """Wait for the end. A job that is parked needs an operator: that is said, and not waited for."""
    try:
        with nullcontext(None) if quiet else show_progress(job.gate) as watch:
            for stands in job.follow():
                if watch is not None:
                    watch(stands)
                if stands.state is JobState.PARKED:
                    raise JobFailed(
                        f"job {job.id} is parked: {stands.reason}", remedy=f"then: tidegate resume {job.id}"
                    )
    except KeyboardInterrupt:
        errors.print(f"job {job.id} goes on; `tidegate cancel {job.id}` ends it", markup=False)
        raise
    return stands
