"""What the ``key`` of a limit answers, as a number that every process of the cluster computes alike."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

from tidegate.errors import LimitKeyError

#: Keys of this length at most (and whole numbers of 64 bits) are remembered with their number.
_REMEMBERED = 256
_ALL_ONES = (1 << 64) - 1


def key_id(key: str | int | bytes) -> int:
    """Sixty-four bits that stand for a key. ``"1"``, ``1`` and ``b"1"`` are three keys.

    Two keys that share a number by chance share their permits: the bound holds, and among a million keys it is one chance
    in 37 million that any two do.

    >>> f"{key_id('example.org'):016x}"
    '5a49e07aabc9163c'
    """
    short = -(1 << 63) <= key < 1 << 63 if isinstance(key, int) else len(key) <= _REMEMBERED
    return _remembered(key) if short else _number(key)


@functools.lru_cache(maxsize=1 << 16, typed=True)
def _remembered(key: str | int | bytes) -> int:
    return _number(key)


def _number(key: str | int | bytes) -> int:
    if isinstance(key, int):
        return _digest(b"i", key.to_bytes(key.bit_length() // 8 + 1, "big", signed=True))
    if isinstance(key, bytes):
        return _digest(b"b", key)
    return _digest(b"s", key.encode("utf-8", "surrogatepass"))


def _digest(tag: bytes, data: bytes) -> int:
    # All ones stand for "no key" in the core.
    return min(int.from_bytes(hashlib.blake2b(tag + data, digest_size=8).digest(), "big"), _ALL_ONES - 1)


def key_function(name: str, function: Callable[..., Any]) -> Callable[..., int | None]:
    """``function`` as the executor calls it: the number of an item's key, ``None`` for an item that is not bound.

    Raises ``LimitKeyError`` when the function fails or answers something else than text, a whole number, bytes or ``None``.
    """

    def number(*args: Any, **kwargs: Any) -> int | None:
        try:
            key = function(*args, **kwargs)
        except Exception as error:
            raise LimitKeyError(
                f"the key of limit {name!r} cannot be told: {type(error).__name__}: {error}",
                remedy="make its key function answer for every item, with None for those that are not bound",
            ) from error
        if key.__class__ is str and len(key) <= _REMEMBERED:  # most keys: nothing further to ask
            return _remembered(key)
        if key is None:
            return None
        if isinstance(key, str | int | bytes):
            return key_id(key)
        raise LimitKeyError(
            f"the key of limit {name!r} is a {type(key).__name__}",
            remedy="answer with text, a whole number, bytes, or None for an item that is not bound",
        )

    return number
