"""From policies to the numbers of the C core: limits, retries and timeouts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.errors import ConfigurationError
from tidegate.executor import _native
from tidegate.executor.failure import Keys, classifier
from tidegate.model.limit import parse_rate
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry

_JITTER = {"none": 0, "full": 1, "equal": 2, "decorrelated": 3}
_PERIOD_S = 3600

#: Decides about an attempt that failed; see :func:`tidegate.executor.failure.classifier`.
Classify = Callable[[BaseException, int, int, bool, Keys], tuple[bool, int, "str | None"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """A circuit breaker: stops calling what keeps failing, and tries again later with a few probes.

    It opens when, of at least ``min_calls`` attempts that ended within ``window`` seconds, a share of ``failure_ratio``
    failed. Open, nothing starts for ``open_for`` seconds: items wait, or with ``refuse`` they fail at once. Then ``probes``
    attempts run; when all succeed it closes, when one fails it opens again. ``key``: a function of the item's arguments;
    each key (text, a whole number or bytes) has a circuit of its own, and an item whose key is ``None`` has none. Failures
    that are not to be retried say nothing about the other side and do not count.

    >>> Breaker(failure_ratio=0)
    Traceback (most recent call last):
    ...
    tidegate.errors.ConfigurationError: Breaker(failure_ratio=0): use a share above 0, at most 1
    """

    failure_ratio: float = 0.5
    min_calls: int = 20
    window: float = 10.0
    open_for: float = 5.0
    probes: int = 3
    refuse: bool = False
    key: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.failure_ratio <= 1:
            raise ConfigurationError(
                f"Breaker(failure_ratio={self.failure_ratio})", remedy="use a share above 0, at most 1"
            )
        if self.min_calls < 1 or self.probes < 1:
            raise ConfigurationError("Breaker(min_calls, probes)", remedy="use 1 or more of each")
        if self.window <= 0 or self.open_for <= 0:
            raise ConfigurationError("Breaker(window, open_for)", remedy="use seconds above 0")


class HostLimit:
    """A limit of one host. With ``supplied``, its permits come from outside, leased from a cluster-wide limit.

    Keys are the numbers that the lane's key functions answered (:func:`tidegate.model.limit_key.key_function`).
    """

    __slots__ = ("inside", "keyed", "name", "on_key_retry_after", "on_retry_after")

    def __init__(self, name: str, inside: _native.Limit, keyed: bool = False) -> None:
        self.name = name
        self.inside = inside
        self.keyed = keyed
        #: Called on any thread as ``(limit_name, delay_s)`` when an item failed and was told when to come back.
        self.on_retry_after: Callable[[str, float], None] | None = None
        #: The same for an item of a keyed limit: ``(limit_name, key, delay_s)``.
        self.on_key_retry_after: Callable[[str, int, float], None] | None = None

    @classmethod
    def create(
        cls,
        core: _native.Core,
        name: str,
        *,
        rate_per_s: float | None,
        burst: int | None,
        concurrency: int | None,
        supplied: bool,
        keyed: bool,
    ) -> HostLimit:
        """A limit inside ``core``; ``ConfigurationError`` unless exactly one of rate and concurrency is given."""
        if (rate_per_s is None) == (concurrency is None):
            raise ConfigurationError(f"limit {name!r}", remedy="give either rate_per_s or concurrency")
        if concurrency is not None:
            inside = core.limit(
                _native.LIMIT_CONCURRENCY,
                keyed=keyed,
                watched=keyed and supplied,
                capacity=0 if supplied else concurrency,
            )
        elif supplied:
            inside = core.limit(_native.LIMIT_SUPPLIED, keyed=keyed)
        else:
            count, period_ns = rate_numbers(rate_per_s or 0.0)
            inside = core.limit(_native.LIMIT_RATE, keyed=keyed, count=count, period_ns=period_ns, burst=burst or 1)
        return cls(name, inside, keyed)

    @classmethod
    def breaker(cls, core: _native.Core, name: str, breaker: Breaker, *, keyed: bool = False) -> HostLimit:
        """A circuit breaker inside ``core``, attached to lanes as limits are."""
        inside = core.limit(
            _native.LIMIT_BREAKER,
            keyed=keyed,
            failure_ratio=breaker.failure_ratio,
            min_calls=breaker.min_calls,
            window_ns=_ns(breaker.window),
            open_ns=_ns(breaker.open_for),
            probes=breaker.probes,
            refuse=breaker.refuse,
        )
        return cls(name, inside, keyed)

    def set_capacity(self, permits: int) -> None:
        """Permits of a concurrency limit from now on. Lowering it interrupts nothing."""
        self.inside.set_capacity(permits)

    def offer(self, start_mono_ns: int, interval_ns: int, count: int, tolerance_ns: int) -> None:
        """``count`` starts from ``start_mono_ns`` on, one each ``interval_ns``, each good for ``tolerance_ns``."""
        self.inside.offer(start_mono_ns, interval_ns, count, tolerance_ns)

    def pause_until(self, mono_ns: int) -> None:
        """Nothing starts under this limit before that time of ``time.monotonic_ns``; 0 ends a pause."""
        self.inside.pause_until(mono_ns)

    def pause_here(self) -> None:
        """From now on a Retry-After pauses this limit (or the item's key of it) in this process."""
        self.on_retry_after = lambda _name, delay_s: self.pause_until(_after(delay_s))
        self.on_key_retry_after = lambda _name, key, delay_s: self.pause_key_until(key, _after(delay_s))

    # ---- keyed limits ----

    def pause_key_until(self, key: int, mono_ns: int) -> None:
        """Nothing of this key starts before that time; 0 ends a pause."""
        self.inside.pause_key_until(key, mono_ns)

    def set_key_permits(self, permits: Sequence[tuple[int, int]]) -> None:
        """Supplied concurrency: permits of each ``(key, permits)`` from now on. Lowering them interrupts nothing."""
        self.inside.set_key_permits(permits)

    def offer_key(self, key: int, start_mono_ns: int, interval_ns: int, count: int, tolerance_ns: int) -> None:
        """As :meth:`offer`, for one key; ``ExecutorFull`` when it has four offers already."""
        self.inside.offer_key(key, start_mono_ns, interval_ns, count, tolerance_ns)

    def take_news(self, most: int) -> list[tuple[int, int, int, int]]:
        """Supplied: ``(key, items waiting, permits in use, starts)`` of at most ``most`` keys that changed since they were
        last told. A key is not forgotten before its last change was told."""
        return self.inside.take_news(most)

    def forget_idle_keys(self) -> None:
        """Give the memory of keys back that nothing waits for or uses."""
        self.inside.trim()

    # ---- figures ----

    def demand(self) -> int:
        """Items that wait for this limit now."""
        return self.inside.demand()

    def in_use(self) -> int:
        """Permits held now, of a concurrency limit."""
        return self.inside.stats()["in_use"]

    def used(self) -> int:
        """Starts admitted ever."""
        return self.inside.stats()["granted"]


def rate_numbers(rate_per_s: float) -> tuple[int, int]:
    """``(count, period_ns)`` of a rate, exact to a ten-thousandth of its interval.

    >>> rate_numbers(2.0)
    (1, 500000000)
    >>> rate_numbers(1 / 7200)
    (1, 7200000000000)
    """
    if not (rate_per_s > 0 and math.isfinite(rate_per_s)):
        raise ConfigurationError(f"rate {rate_per_s!r} allows nothing", remedy="use a rate above 0")
    count = 1
    while count / rate_per_s < 1e-5 and count < 1_000_000:  # short intervals need a longer period to be exact
        count *= 10
    return count, max(1, round(count / rate_per_s * 1e9))


def rate_limit(core: _native.Core, name: str, policy: TaskPolicy) -> tuple[HostLimit, ...]:
    """The per-process rate of a policy as a limit of its own, or nothing."""
    if policy.rate is None:
        return ()
    per_s = parse_rate(policy.rate)
    burst = policy.burst or max(1, int(per_s / 10))
    limit = HostLimit.create(
        core, f"{name}.rate", rate_per_s=per_s, burst=burst, concurrency=None, supplied=False, keyed=False
    )
    return (limit,)


@dataclass(frozen=True, slots=True)
class LaneOptions:
    """What ``Core.lane`` needs besides function and limits."""

    retry: Retry
    numbers: dict[str, Any]

    def classify(self, limits: Sequence[HostLimit]) -> Classify:
        """The decision about failed attempts, which also reports a Retry-After to the lane's limits."""

        def report(delay_s: float, keys: Keys) -> None:
            its_keys = iter(keys)
            for limit in limits:
                key = next(its_keys, None) if limit.keyed else None
                if not limit.keyed and limit.on_retry_after is not None:
                    limit.on_retry_after(limit.name, delay_s)
                elif key is not None and limit.on_key_retry_after is not None:
                    limit.on_key_retry_after(limit.name, key, delay_s)

        return classifier(self.retry, report if limits else None)


def lane_options(policy: TaskPolicy, *, max_wait_s: float | None, capacity: int, priority: int) -> LaneOptions:
    """The numbers of a policy, in the core's units."""
    retry = policy.retry
    max_wait = policy.max_wait if max_wait_s is None else max_wait_s
    return LaneOptions(
        retry,
        {
            "concurrency": policy.concurrency,
            "timeout_ns": _ns(policy.timeout),
            "hard_ns": _ns(policy.hard_timeout),
            "max_wait_ns": _ns(max_wait),
            "capacity": capacity,
            "max_crashes": policy.max_crashes,
            "priority": priority,
            "attempts": min(retry.attempts, 65_535),
            "base_ns": _ns(retry.base),
            "factor": retry.factor,
            "cap_ns": max(1, _ns(retry.cap)),
            "jitter": _JITTER[retry.jitter],
            "deadline_ns": _ns(retry.deadline),
            "retry_timeouts": _retries_timeouts(retry),
            "budget": retry.budget or 0.0,
            "budget_floor": retry.budget_floor if retry.budget is not None else 0.0,
        },
    )


def _after(delay_s: float) -> int:
    return time.monotonic_ns() + round(delay_s * 1e9)


def _retries_timeouts(retry: Retry) -> bool:
    try:
        return retry.wants(_native.ItemTimeout())
    except Exception:  # noqa: BLE001 - a predicate that fails answers nothing
        return False


def _ns(seconds: float | None) -> int:
    """Nanoseconds, at most a year; 0 for none."""
    return 0 if seconds is None else round(min(seconds, 31_557_600.0) * 1e9)
