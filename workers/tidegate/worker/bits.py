"""Bitmaps of a batch's items: bit ``i`` is in byte ``i // 8``, the least significant first."""

from __future__ import annotations

from collections.abc import Iterable


def empty(items: int) -> bytearray:
    """No bit set."""
    return bytearray((items + 7) // 8)


def of(positions: Iterable[int], items: int) -> bytes:
    """Those bits set.

    >>> of([0, 9], 10)
    b'\\x01\\x02'
    """
    bitmap = empty(items)
    for position in positions:
        bitmap[position >> 3] |= 1 << (position & 7)
    return bytes(bitmap)


def is_set(bitmap: bytes, position: int) -> bool:
    """Whether the bit is set; what lies beyond the bitmap is not."""
    index = position >> 3
    return index < len(bitmap) and bool(bitmap[index] >> (position & 7) & 1)


def union(one: bytes, other: bytes) -> bytes:
    """Bits set in either."""
    if not one or not other:
        return one or other
    size = max(len(one), len(other))
    merged = int.from_bytes(one, "little") | int.from_bytes(other, "little")
    return merged.to_bytes(size, "little")


def missing(bitmap: bytes, items: int) -> bytes:
    """The bits of ``items`` that are not set.

    >>> missing(b"\\x01", 3)
    b'\\x06'
    """
    everything = (1 << items) - 1
    rest = everything & ~int.from_bytes(bitmap, "little")
    return rest.to_bytes((items + 7) // 8, "little")


def count(bitmap: bytes) -> int:
    """How many bits are set."""
    return int.from_bytes(bitmap, "little").bit_count()
