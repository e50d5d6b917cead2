"""Taking items from what the user gives: sync or async iterables, a batch at a time and never more."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Any

from tidegate.errors import ConfigurationError


def sync_source(items: Iterable[Any]) -> Iterator[Any]:
    """An iterator over ``items``. One text is refused: its letters are hardly what was meant."""
    if isinstance(items, (str, bytes, bytearray)):
        raise ConfigurationError(
            f"items is one {type(items).__name__}, not a collection of items", remedy="wrap it: map([item])"
        )
    try:
        return iter(items)
    except TypeError:
        raise ConfigurationError(
            f"items is a {type(items).__name__}, which cannot be iterated",
            remedy="give a list, a generator, a file, or any iterable or async iterable",
        ) from None


def is_async(items: Any) -> bool:
    """Whether items has to be iterated with ``async for``."""
    return isinstance(items, AsyncIterable)


def known_length(items: Any) -> int | None:
    """The number of items when it is known beforehand and exact."""
    return operator.index(len(items)) if hasattr(items, "__len__") else None


def take(source: Iterator[Any], count: int) -> list[Any]:
    """Up to ``count`` items; an empty list at the end."""
    return list(islice(source, count))


async def take_async(source: AsyncIterator[Any], count: int) -> list[Any]:
    """Up to ``count`` items; an empty list at the end."""
    taken: list[Any] = []
    append = taken.append
    async for item in source:
        append(item)
        if len(taken) == count:
            break
    return taken
