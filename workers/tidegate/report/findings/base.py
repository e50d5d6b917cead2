"""Finding and Severity: what a rule says."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from tidegate.report.facts import Facts


class Severity(StrEnum):
    """``critical``: results are missing or will be; ``warning``: something costs time or items; ``info``: good to know."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for the most severe."""
        return list(Severity).index(self)


class Finding(msgspec.Struct, frozen=True):
    """One line of a report. ``code`` is stable, for programs; the rest is for people."""

    severity: Severity
    code: str
    title: str
    evidence: str
    remedy: str


Rule = Callable[[Facts], Finding | None]
