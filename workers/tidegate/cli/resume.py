"""``tidegate resume``: undo a pause or a parking."""

from __future__ import annotations

from tidegate.cli.options import JobId, Json, Url, gate_for
from tidegate.cli.output import one_line, print_json, progress_document, say


def resume(job_id: JobId, *, json: Json = False, url: Url = None) -> None:
    """Resume a job that was paused, or parked once its reason is gone."""
    stands = gate_for(url).job(job_id).resume()
    if json:
        print_json(progress_document(stands))
    else:
        say(one_line(stands))
