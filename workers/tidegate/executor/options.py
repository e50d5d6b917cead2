"""What an Executor is made with and called with, refused by name when it is of the wrong kind."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from tidegate.errors import ConfigurationError
from tidegate.executor.kinds import CFunction
from tidegate.executor.lanes import Breaker
from tidegate.model.limit import Limit


def demand_numbers(**options: Any) -> None:
    """``None`` or a whole number each; of those whose name ends in ``timeout``, any number."""
    for name, value in options.items():
        seconds = name.endswith("timeout")
        kinds = (int, float) if seconds else (int,)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            remedy = "use a number of seconds" if seconds else "use a whole number"
            raise ConfigurationError(f"{name}={value!r}", remedy=remedy)


def demand_parts(limits: Sequence[Any], breaker: Any, fallback: Any, burst: int | None) -> None:
    """Limits, a breaker and a fallback are what they are called."""
    for limit in limits:
        if not isinstance(limit, Limit):
            raise ConfigurationError(f"limits has {limit!r}", remedy="use Limit(…)")
    if breaker is not None and not isinstance(breaker, Breaker):
        raise ConfigurationError(f"breaker={breaker!r}", remedy="use Breaker(…)")
    if isinstance(fallback, CFunction):
        raise ConfigurationError("fallback is a C function", remedy="use a Python function of (item, error)")
    if fallback is not None and not callable(fallback):
        raise ConfigurationError(f"fallback={fallback!r}", remedy="use a function of (item, error)")
    if burst is not None and burst < 1:
        raise ConfigurationError(f"burst={burst}", remedy="use 1 or more, or None")


def demand_function(function: Any) -> None:
    """Something that can be called; a coroutine that was made already is the usual slip."""
    if callable(function) or isinstance(function, CFunction):
        return
    if inspect.iscoroutine(function):
        function.close()  # or it warns that it was never awaited
        raise ConfigurationError(
            f"{function.__qualname__}(…) was called already", remedy="give the function and its arguments: run(f, x)"
        )
    raise ConfigurationError(f"{function!r} is not a function", remedy="give a function, or a CFunction")
