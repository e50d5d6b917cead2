"""Wrong arguments: a typed error that names the argument and the remedy, never one from deep inside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tidegate.errors import ConfigurationError
from tidegate.executor.executor import Executor


@pytest.mark.parametrize(
    "option",
    [
        {"concurrency": 1.5},
        {"concurrency": "3"},
        {"concurrency": True},
        {"threads": "a"},
        {"memory_limit": "1 GB"},
        {"timeout": "3"},
        {"hard_timeout": "3"},
        {"fallback": 3},
        {"burst": 0},
        {"limits": [3]},
        {"breaker": 3},
    ],
    ids=str,
)
def test_an_option_of_the_wrong_kind_is_named(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(option))}.*: use "):
        Executor(rate="3/s", **option)


@pytest.mark.parametrize("function", [None, "f", 3])
def test_what_is_no_function_is_refused_before_anything_runs(executors: Callable[..., Executor], function: Any) -> None:
    executor = executors(2)
    for call in (
        lambda: executor.run(function, 1),
        lambda: executor.map(function, [1]),
        lambda: list(executor.stream(function, [1])),
        lambda: asyncio.run(executor.amap(function, [1])),
    ):
        with pytest.raises(ConfigurationError, match="is not a function"):
            call()


def test_a_coroutine_instead_of_its_function_is_explained(executors: Callable[..., Executor]) -> None:
    async def visit(url: str) -> str:
        return url

    with pytest.raises(ConfigurationError, match=r"visit\(…\) was called already.*run\(f, x\)"):
        executors(2).run(visit("a"))  # type: ignore[arg-type]
