"""What a storm is asked to do, and what it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.testing.chaos.check import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything. ``share`` of the long form's items and faults; the short form is a few per cent."""

    long: bool
    seed: int
    folder: Path

    def items(self, long: int, short: int) -> int:
        return long if self.long else short

    def faults(self, long: int, short: int) -> int:
        return long if self.long else short


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. ``proof``: faults that really happened, by name, none of them zero."""

    fault: str
    load: str
    verdict: Verdict | None
    proof: Mapping[str, int | float]
    shown: Mapping[str, int | float | str] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Why this row does not hold; empty when it does."""
        found = [f"the fault did not happen: {name}" for name, count in self.proof.items() if not count]
        if self.verdict is not None and not self.verdict.valid:
            found.append(str(self.verdict))
        found += [
            f"{name} is {value:g}, at most {most:g}" for name, (value, most) in self.bounds.items() if value > most
        ]
        return found
