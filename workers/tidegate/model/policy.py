"""TaskPolicy: everything that a task promises about how its items are run."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate.errors import ConfigurationError
from tidegate.model.limit import Limit, parse_rate
from tidegate.model.retry import Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPolicy:
    """How items of one task are run in one worker process.

    ``concurrency``: items at once, per process. ``rate``/``burst``: starts per second, per process. ``timeout``: seconds
    for one attempt; one that goes on nevertheless has as long again to clean up. ``hard_timeout``: seconds after which a
    stuck process is ended. ``limits``: cluster-wide bounds.
    ``max_crashes``: crashes of its process after which an item is given up. ``max_wait``: seconds; an item that has to
    wait longer than this for its next attempt goes back to the ledger instead of staying in memory.
    """

    concurrency: int = 8
    rate: str | float | None = None
    burst: int | None = None
    timeout: float | None = None
    hard_timeout: float | None = None
    retry: Retry = field(default_factory=lambda: Retry(attempts=1))
    limits: tuple[Limit, ...] = ()
    max_crashes: int = 3
    max_wait: float = 5.0

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigurationError(f"concurrency={self.concurrency}", remedy="use 1 or more items at once")
        if self.rate is not None:
            parse_rate(self.rate)
        if not isinstance(self.retry, Retry):
            raise ConfigurationError(f"retry={self.retry!r}", remedy="use Retry(attempts=…)")
        for limit in self.limits:
            if not isinstance(limit, Limit):
                raise ConfigurationError(
                    f"limits: {limit!r} is not a Limit", remedy="use Limit(name, rate=…) or Limit(name, concurrency=…)"
                )
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigurationError(f"timeout={self.timeout}", remedy="use seconds above 0, or None for no timeout")
        if self.hard_timeout is not None and self.hard_timeout < (self.timeout or 0):
            raise ConfigurationError(
                f"hard_timeout={self.hard_timeout}", remedy="use at least the timeout: it ends the whole process"
            )
        if self.max_crashes < 1:
            raise ConfigurationError(f"max_crashes={self.max_crashes}", remedy="use 1 or more")
        names = [limit.name for limit in self.limits]
        if len(set(names)) != len(names):
            raise ConfigurationError(f"limits {names}", remedy="name each limit once per task")
