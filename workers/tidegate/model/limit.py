"""Limit: a named bound shared by every worker of the cluster."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tidegate.errors import ConfigurationError

_RATE = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*/\s*(ms|s|m|min|h|d)\s*$")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NAME = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")


def parse_rate(rate: str | float) -> float:
    """Permits per second from ``"5000/h"``, ``"100/s"``, ``"30/m"`` or a number (per second).

    >>> parse_rate("3600/h"), parse_rate(2)
    (1.0, 2.0)
    """
    if isinstance(rate, str):
        match = _RATE.match(rate)
        if not match:
            raise ConfigurationError(
                f"rate {rate!r} is not a rate", remedy='write "100/s", "30/m", "5000/h" or a number'
            )
        per_s = float(match[1]) / _UNIT_S[match[2]]
    else:
        per_s = float(rate)
    if not (per_s > 0 and math.isfinite(per_s)):
        raise ConfigurationError(f"rate {rate!r} allows nothing", remedy="use a rate above 0, or pause the job")
    return per_s


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on a task: at most ``concurrency`` items at once, or at most ``rate`` starts with bursts of ``burst``.

    ``name`` is shared: tasks that name the same limit share its permits. ``rate``: ``"5000/h"`` or permits per second.
    ``burst``: permits that may be used at once after a pause (default: a tenth of a second's worth, at least 1).
    ``key``: a function of the item's arguments that answers with text, a whole number or bytes; each key has permits of
    its own, and an item for which it answers ``None`` is not bound. It is called where items run, for each item when its
    batch arrives; where it raises, the item fails with ``LimitKeyError``. Tasks that share the limit may have different
    functions: equal keys are one.
    ``scope``: ``"cluster"`` (all worker processes together) or ``"process"`` (each for itself, without the server).

    >>> Limit("api", rate="100/s").burst_permits
    10
    """

    name: str
    rate: str | float | None = None
    burst: int | None = None
    concurrency: int | None = None
    key: Callable[..., Any] | None = None
    scope: str = "cluster"

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ConfigurationError(f"limit name {self.name!r}", remedy="use 1 to 64 letters, digits, and _ . -")
        if (self.rate is None) == (self.concurrency is None):
            raise ConfigurationError(f"limit {self.name!r}", remedy="give either rate or concurrency")
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigurationError(f"limit {self.name!r}: concurrency={self.concurrency}", remedy="use 1 or more")
        if self.rate is not None:
            parse_rate(self.rate)
        if self.burst is not None and (self.rate is None or self.burst < 1):
            raise ConfigurationError(f"limit {self.name!r}: burst={self.burst}", remedy="use 1 or more, with a rate")

        if self.scope not in ("cluster", "process"):
            raise ConfigurationError(f"limit {self.name!r}: scope={self.scope!r}", remedy='use "cluster" or "process"')
        if self.key is not None and (not callable(self.key) or inspect.iscoroutinefunction(self.key)):
            raise ConfigurationError(
                f"limit {self.name!r}: key={self.key!r}", remedy="use a plain function of the item's arguments"
            )

    @property
    def rate_per_s(self) -> float | None:
        """Permits per second, or ``None`` for a concurrency limit."""
        return None if self.rate is None else parse_rate(self.rate)

    @property
    def burst_permits(self) -> int:
        """Permits that may be used at once."""
        if self.burst is not None:
            return self.burst
        return 1 if self.rate is None else max(1, int(parse_rate(self.rate) / 10))
