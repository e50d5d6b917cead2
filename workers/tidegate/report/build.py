"""Report: the facts of one job and what follows from them, as text, HTML and JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult

from tidegate.ledger.port import Ledger
from tidegate.report import html
from tidegate.report.document import Document, document
from tidegate.report.facts import Facts, collect
from tidegate.report.findings import Finding, find
from tidegate.report.sampled import TelemetrySource
from tidegate.report.text import WIDTH, as_text, renderables


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """What happened to a job and what to change. Print it, show it in a notebook, or take it as HTML or JSON."""

    facts: Facts
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        return as_text(self.facts, self.findings)

    def __repr__(self) -> str:
        progress = self.facts.progress
        return f"<Report of job {progress.job_id}: {progress.done} of {progress.total} items, {len(self.findings)} findings>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from renderables(self.facts, self.findings)

    def _repr_html_(self) -> str:
        return html.as_notebook(self.facts, self.findings)

    def to_text(self, *, width: int = WIDTH) -> str:
        """Plain text, at most ``width`` columns (60 or more)."""
        return as_text(self.facts, self.findings, width=width)

    def to_html(self) -> str:
        """A page that stands alone: style, charts and their script are in it, and it needs no network."""
        return html.as_page(self.facts, self.findings)

    def to_fragment(self) -> str:
        """The body of that page, with its figures, for a page that has the style and the script already."""
        return html.as_fragment(self.facts, self.findings, charts=True)

    def to_dict(self) -> Document:
        """Plain data in the schema of docs/report.md."""
        return document(self.facts, self.findings)

    def to_json(self, *, indent: int | None = None) -> str:
        """The same as JSON text, ASCII only."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)


def build(ledger: Ledger, job_id: str, telemetry: TelemetrySource | None = None, *, memory_soft: float = 0.8) -> Report:
    """The report of a job, ended or not. ``JobNotFound`` if there is none.

    Without ``telemetry`` everything about items is still there and still exact; what is said of workers is left out.
    ``memory_soft``: the mark that workers run with (``Settings.memory_soft``).
    """
    facts = collect(ledger, telemetry, job_id, memory_soft=memory_soft)
    return Report(facts, find(facts))
