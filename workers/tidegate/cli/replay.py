"""``tidegate replay``: submit a job's failed items again."""

from __future__ import annotations

from typing import Annotated

import typer

from tidegate.cli.options import JobId, Json, Url, gate_for
from tidegate.cli.output import print_json, progress_document, say
from tidegate.errors import ConfigurationError
from tidegate.model.outcome import Outcome


def replay(
    job_id: JobId,
    *,
    error_type: Annotated[
        str | None, typer.Option(help="Only items that failed with this error, as in the report.")
    ] = None,
    outcome: Annotated[str | None, typer.Option(help="Only items with this outcome, for example timed_out.")] = None,
    index: Annotated[list[int] | None, typer.Option(help="Only this item of the job; may be repeated.")] = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Submit the failed items of an ended job again, as a new job that is linked to it."""
    known = [each.value for each in Outcome if each is not Outcome.SUCCEEDED]
    if outcome is not None and outcome not in known:
        raise ConfigurationError(f"--outcome {outcome}", remedy=f"use one of {', '.join(known)}")
    again = gate_for(url).job(job_id).replay(error_type=error_type, outcome=outcome, indexes=index or None)
    stands = again.progress()
    if json:
        print_json(progress_document(stands))
    else:
        say(f"job {again.id}: {stands.total:,} items of job {job_id} again")
