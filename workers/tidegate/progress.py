"""A progress bar on the terminal, drawn from how the ledger says that a job stands."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from tidegate.model.job import Progress
from tidegate.model.outcome import JobState, Outcome

if TYPE_CHECKING:
    from tidegate.app import Tidegate

Watcher = Callable[[Progress], None]

#: Looking for live workers costs a question to the ledger.
_LOOK_FOR_WORKERS_S = 3.0


@contextlib.contextmanager
def show_progress(gate: Tidegate, console: Console | None = None) -> Iterator[Watcher]:
    """A function that draws what it is given, one line per job. Goes to standard error, so that output can be piped."""
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    lines: dict[str, _Line] = {}
    with Bar(*columns, console=console, transient=False, refresh_per_second=8) as bar:

        def watch(stands: Progress) -> None:
            if stands.job_id not in lines:
                lines[stands.job_id] = _Line(gate, bar, stands)
            lines[stands.job_id].update(stands)

        yield watch


class _Line:
    def __init__(self, gate: Tidegate, bar: Bar, stands: Progress) -> None:
        self._gate = gate
        self._bar = bar
        name = stands.task.rpartition(".")[2] or stands.task
        self._id = bar.add_task(escape(name), total=None, rate="", note="")
        self._last = (time.monotonic(), stands.done)
        self._per_s = 0.0
        self._looked = time.monotonic()
        self._alone = False

    def update(self, stands: Progress) -> None:
        self._measure(stands)
        self._look_for_workers(stands)
        known = stands.state is not JobState.OPEN
        self._bar.update(
            self._id,
            completed=stands.done,
            total=stands.total if known else None,
            rate=f"{self._per_s:,.0f}/s" if self._per_s else "",
            note=self._note(stands),
        )
        if stands.ended:
            self._bar.stop_task(self._id)
            self._bar.refresh()

    def _measure(self, stands: Progress) -> None:
        then, done = self._last
        now = time.monotonic()
        if stands.ended and stands.finished_ms > stands.created_ms:
            self._per_s = stands.done / ((stands.finished_ms - stands.created_ms) / 1000)
        elif now - then >= 0.5:
            latest = (stands.done - done) / (now - then)
            self._per_s = latest if not self._per_s else 0.6 * self._per_s + 0.4 * latest
            self._last = (now, stands.done)

    def _look_for_workers(self, stands: Progress) -> None:
        now = time.monotonic()
        if now - self._looked >= _LOOK_FOR_WORKERS_S and not stands.ended:
            self._looked = now
            self._alone = not self._gate.ledger().workers()

    def _note(self, stands: Progress) -> str:
        bad = [
            f"[red]{stands.outcomes[outcome]:,} {outcome.value.replace('_', ' ')}[/red]"
            for outcome in Outcome
            if outcome is not Outcome.SUCCEEDED and stands.outcomes.get(outcome)
        ]
        if stands.state is JobState.PARKED:
            bad.append(f"[yellow]parked: {escape(stands.reason)}[/yellow]")
        elif stands.paused:
            bad.append("[yellow]paused[/yellow]")
        elif stands.state is JobState.CANCELLED:
            bad.append("[yellow]cancelled[/yellow]")
        elif self._alone:
            bad.append("[yellow]no worker is running: tidegate worker MODULE:NAME[/yellow]")
        return " · ".join(bad)
