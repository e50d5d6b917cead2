"""Retry: the policy a user writes, and the pure rule for how long to wait. The C core applies the same rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from tidegate.errors import ConfigurationError

Jitter = Literal["full", "none", "equal", "decorrelated"]
JITTERS: tuple[Jitter, ...] = ("full", "none", "equal", "decorrelated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and when a failed item is tried again.

    ``attempts``: executions in all, the first included. ``base``, ``cap``: seconds; the wait before attempt ``n + 1`` is
    drawn from ``base * factor ** (n - 1)``, never above ``cap``. ``jitter``: ``full`` draws from 0 to that, ``equal`` from
    half of it, ``none`` takes it, ``decorrelated`` draws from ``base`` to three times the last wait (AWS Architecture
    Blog, "Exponential Backoff And Jitter", 2015). ``deadline``: seconds from the first attempt after which no new attempt
    starts. ``on`` and ``not_on``: exception classes to retry and not; ``when``: a predicate over the exception, asked last.
    ``budget``: retries per success that a lane may spend, above a floor of ``budget_floor`` retries a second; ``None`` is
    no budget.

    >>> Retry(attempts=5, base=0.2, cap=30).attempts
    5
    >>> Retry(attempts=0)
    Traceback (most recent call last):
    ...
    tidegate.errors.ConfigurationError: Retry(attempts=0): use at least 1 (the first execution counts)
    """

    attempts: int = 3
    base: float = 0.2
    factor: float = 2.0
    cap: float = 30.0
    jitter: Jitter = "full"
    deadline: float | None = None
    on: tuple[type[BaseException], ...] = (Exception,)
    not_on: tuple[type[BaseException], ...] = ()
    when: Callable[[BaseException], bool] | None = None
    budget: float | None = None
    budget_floor: float = 10.0

    def __post_init__(self) -> None:
        _demand(self.attempts >= 1, f"Retry(attempts={self.attempts})", "use at least 1 (the first execution counts)")
        _demand(self.base >= 0, f"Retry(base={self.base})", "use seconds, 0 or more")
        _demand(self.factor >= 1, f"Retry(factor={self.factor})", "use 1 or more")
        _demand(self.cap >= 0, f"Retry(cap={self.cap})", "use seconds, 0 or more")
        _demand(self.jitter in JITTERS, f"Retry(jitter={self.jitter!r})", f"use one of {', '.join(JITTERS)}")
        _demand(self.deadline is None or self.deadline > 0, f"Retry(deadline={self.deadline})", "use seconds above 0")
        _demand(self.budget is None or self.budget >= 0, f"Retry(budget={self.budget})", "use a share, 0 or more")

    def wants(self, error: BaseException) -> bool:
        """Whether this kind of error is to be tried again at all."""
        if isinstance(error, self.not_on) or not isinstance(error, self.on):
            return False
        return self.when is None or bool(self.when(error))


def backoff_s(retry: Retry, failed_attempts: int, random: Random, last_s: float = 0.0) -> float:
    """Seconds to wait after ``failed_attempts`` failures; the reference that the C core is tested against.

    >>> backoff_s(Retry(base=1, cap=5, jitter="none"), 3, Random(1))
    4.0
    """
    ceiling = min(retry.cap, retry.base * retry.factor ** (failed_attempts - 1))
    match retry.jitter:
        case "none":
            return float(ceiling)
        case "equal":
            return ceiling / 2 + random.uniform(0, ceiling / 2)
        case "decorrelated":
            return min(retry.cap, random.uniform(retry.base, max(retry.base, last_s * 3)))
        case _:
            return random.uniform(0, ceiling)


def _demand(holds: bool, what: str, remedy: str) -> None:
    if not holds:
        raise ConfigurationError(what, remedy=remedy)
