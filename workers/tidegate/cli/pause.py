"""``tidegate pause``: hand out no more batches until it is resumed."""

from __future__ import annotations

from tidegate.cli.options import JobId, Json, Url, gate_for
from tidegate.cli.output import one_line, print_json, progress_document, say


def pause(job_id: JobId, *, json: Json = False, url: Url = None) -> None:
    """Pause a job: no more batches are handed out until it is resumed; what runs goes on."""
    stands = gate_for(url).job(job_id).pause()
    if json:
        print_json(progress_document(stands))
    else:
        say(one_line(stands))
