"""The app that the benchmark's Tidegate worker loads: a task that does next to nothing."""

from __future__ import annotations

from tidegate import Tidegate

gate = Tidegate()


@gate.task(concurrency=4)
def noop(number: int) -> int:
    """What is measured is everything around it."""
    return number
