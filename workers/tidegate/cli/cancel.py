"""``tidegate cancel``: start nothing more, settle what is pending as cancelled."""

from __future__ import annotations

from typing import Annotated

import typer

from tidegate.cli.options import JobId, Json, Url, gate_for
from tidegate.cli.output import one_line, print_json, progress_document, say


def cancel(
    job_id: JobId,
    *,
    reason: Annotated[str, typer.Option(help="Kept with the job.")] = "",
    json: Json = False,
    url: Url = None,
) -> None:
    """Cancel a job: nothing more is started, and what is pending ends as cancelled."""
    stands = gate_for(url).job(job_id).cancel(reason)
    if json:
        print_json(progress_document(stands))
    else:
        say(one_line(stands))
