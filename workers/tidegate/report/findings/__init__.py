"""Rules: pure functions from facts to findings. Each says one cause, its evidence, and what to change.

A rule that lacks evidence (too few items, too short a time, no telemetry) says nothing.
"""

from tidegate.report.facts import Facts
from tidegate.report.findings.base import Finding, Rule, Severity
from tidegate.report.findings.capacity import CAPACITY_RULES
from tidegate.report.findings.items import ITEM_RULES
from tidegate.report.findings.job import JOB_RULES
from tidegate.report.findings.workers import WORKER_RULES

__all__ = ["RULES", "Finding", "Rule", "Severity", "find"]

RULES: tuple[Rule, ...] = (*JOB_RULES, *ITEM_RULES, *CAPACITY_RULES, *WORKER_RULES)


def find(facts: Facts) -> tuple[Finding, ...]:
    """All findings that the facts support, the most severe first, otherwise in the order of the rules."""
    found = [finding for rule in RULES if (finding := rule(facts)) is not None]
    return tuple(sorted(found, key=lambda finding: finding.severity.rank))
