"""What commands print: tables and lines for people, one JSON document for scripts."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console

from tidegate.model.job import Progress
from tidegate.model.outcome import Outcome

#: Piped output is not folded to the 80 columns of a terminal that is not there.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """One document on standard output, indented, keys as they are."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2)
    sys.stdout.write(text.decode() + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A line for people. Text from jobs is untrusted: no markup is read from it, and control characters are shown."""
    console.print(printable(text), markup=False, soft_wrap=True)


def printable(text: str) -> str:
    r"""``text`` with what would steer a terminal written out.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def progress_document(stands: Progress) -> dict[str, Any]:
    """How a job stands, for ``--json``. Times are milliseconds since 1970, by the server's clock."""
    spec = stands.spec
    return {
        "job": stands.job_id,
        "task": stands.task,
        "queue": stands.queue,
        "state": stands.state.value,
        "paused": stands.paused,
        "reason": stands.reason,
        "cut_short": stands.cut_short,
        "total": stands.total,
        "pending": stands.pending,
        "outcomes": {outcome.value: stands.outcomes.get(outcome, 0) for outcome in Outcome},
        "retries": stands.retries,
        "batches": stands.batches,
        "batches_done": stands.batches_done,
        "pending_bytes": stands.pending_bytes,
        "lost_leases": stands.lost_leases,
        "created_ms": stands.created_ms,
        "started_ms": stands.started_ms,
        "finished_ms": stands.finished_ms,
        "replay_of": spec.replay_of if spec else "",
        "origin": f"{spec.origin.file}:{spec.origin.line}" if spec and spec.origin.file else "",
    }


def exit_code(stands: Progress) -> int:
    """0 when every item of the ended job succeeded, 1 when some did not."""
    return 0 if stands.outcomes.get(Outcome.SUCCEEDED, 0) == stands.total else 1


def one_line(stands: Progress) -> str:
    """``job 3f…: done, 998 of 1,000 succeeded, 2 failed``."""
    others = [
        f"{count:,} {outcome.value.replace('_', ' ')}"
        for outcome, count in stands.outcomes.items()
        if outcome is not Outcome.SUCCEEDED and count
    ]
    state = "paused" if stands.paused and not stands.ended else stands.state.value
    good = stands.outcomes.get(Outcome.SUCCEEDED, 0)
    text = f"job {stands.job_id}: {state}, {good:,} of {stands.total:,} succeeded"
    if stands.pending:
        others.append(f"{stands.pending:,} pending")
    return ", ".join([text, *others]) + (f" ({stands.reason})" if stands.reason else "")
