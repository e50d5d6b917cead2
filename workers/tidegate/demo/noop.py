"""The app of ``tidegate bench``: a task that does nothing, so that everything around it can be measured."""

from __future__ import annotations

from tidegate import Tidegate


def noop(number: int) -> int:
    """Give back what came."""
    return number


def build(url: str | None = None) -> Tidegate:
    """The app with its task. Without ``url`` it finds its ledger as every app does."""
    gate = Tidegate(url)
    gate.task(concurrency=4)(noop)
    return gate


gate = build()
