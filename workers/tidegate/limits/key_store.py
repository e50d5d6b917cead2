"""The keys of keyed limits in Redis, as typed calls: one call serves many keys of one limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.limits import keys
from tidegate.limits.store import HORIZON_US, TURN_MS, LimitStore, Undeclared

#: Keys of one call at most: one or two milliseconds of the server's time.
PAGE = 128
#: How long the server remembers what a live process holds of a key; the process asks again for it several times in that time.
KEY_TTL_MS = 120_000
#: How long a process that waits for a key counts as waiting after it last asked.
WAIT_COUNTS_MS = 3_000
#: How long the end of a pause is remembered, so that everybody hears of it.
PAUSE_KEPT_MS = 60_000


@dataclass(frozen=True, slots=True)
class Ask:
    """Permits wanted of one key, of which ``in_use`` cannot be taken back; or slots wanted, ``ahead`` in the future."""

    key: int
    want: int
    in_use: int = 0
    ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What every answer brings. ``pauses``: keys that were paused since ``pause_number``, until when (server, us)."""

    now_us: int
    paused_us: int
    version: int
    pause_number: int
    pauses: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPermits(News):
    """An answer of ``hold_keys``. ``answers``: (allowed, recorded) of each key that was asked for. ``wanted``: keys that
    somebody waits for, one page of them; ``next_place`` is where the next page begins, 0 at the end."""

    limit: int
    fresh: bool
    answers: tuple[tuple[int, int], ...]
    wanted: tuple[int, ...]
    next_place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySlots(News):
    """An answer of ``lease_key_slots``. ``answers``: (granted, start us, come back in us) of each key."""

    interval_ns: int
    tolerance_us: int
    answers: tuple[tuple[int, int, int], ...]


class KeyStore:
    """Calls of one limit over a ``LimitStore``. Keys are the core's 64-bit keys. Methods raise what redis-py raises."""

    def __init__(self, store: LimitStore, name: str) -> None:
        self._store = store
        self._name = name

    def hold_keys(
        self, holder: str, asks: Sequence[Ask], *, sequence: int, lease_ms: int, pause_number: int, place: int
    ) -> KeyPermits | Undeclared:
        """Hold up to ``want`` permits of each key, at least the ``in_use`` ones; renew the lease on every key."""
        name = self._name
        arguments: list[str | int] = [
            holder, sequence, lease_ms, TURN_MS, WAIT_COUNTS_MS, keys.LIMIT_TTL_MS, KEY_TTL_MS, pause_number, place,
        ]  # fmt: skip
        for ask in asks:
            arguments += (name_of(ask.key), ask.want, ask.in_use)
        names = [
            keys.limit_key(name), keys.holders_key(name), keys.sequences_key(name), keys.wanted_key(name),
            keys.paused_key(name), keys.pause_news_key(name), *self._names(asks),
        ]  # fmt: skip
        answer = self._store.run("hold_keys", names, arguments)
        if answer[0] < 0:
            return Undeclared(other_kind=answer[0] == -2)
        now, paused, version, limit, fresh, number, next_place, pauses, wanted, pairs = answer
        return KeyPermits(
            now_us=now, paused_us=paused, version=version, limit=limit, fresh=bool(fresh), pause_number=number,
            next_place=next_place, pauses=_pauses(pauses), wanted=tuple(int(key, 16) for key in wanted),
            answers=tuple(zip(pairs[::2], pairs[1::2], strict=True)),
        )  # fmt: skip

    def lease_key_slots(self, asks: Sequence[Ask], *, pause_number: int) -> KeySlots | Undeclared:
        """Take up to ``want`` slots of each key, ``ahead`` of them in the future."""
        name = self._name
        arguments: list[str | int] = [HORIZON_US, keys.LIMIT_TTL_MS, pause_number]
        for ask in asks:
            arguments += (name_of(ask.key), ask.want, ask.ahead)
        names = [keys.limit_key(name), keys.paused_key(name), keys.pause_news_key(name), *self._names(asks)]
        answer = self._store.run("lease_key_slots", names, arguments)
        if answer[0] < 0:
            return Undeclared(other_kind=answer[0] == -2)
        now, paused, version, interval, tolerance, number, pauses, flat = answer
        return KeySlots(
            now_us=now, paused_us=paused, version=version, pause_number=number, pauses=_pauses(pauses),
            interval_ns=interval, tolerance_us=tolerance,
            answers=tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True)),
        )  # fmt: skip

    def pause_key(self, key: int, seconds: float) -> tuple[int, int]:
        """Nothing of the key starts for ``seconds``, anywhere. Returns (paused until, now), server microseconds."""
        name = self._name
        until, now = self._store.run(
            "pause_key",
            [keys.limit_key(name), keys.paused_key(name), keys.pause_news_key(name)],
            [name_of(key), max(0, round(seconds * 1e6)), keys.LIMIT_TTL_MS, PAUSE_KEPT_MS],
        )
        return int(until), int(now)

    def _names(self, asks: Sequence[Ask]) -> list[str]:
        return [keys.one_key(self._name, name_of(ask.key)) for ask in asks]


def name_of(key: int) -> str:
    """The name of a key in Redis.

    >>> name_of(255)
    '00000000000000ff'
    """
    return f"{key:016x}"


def _pauses(flat: Sequence[Any]) -> tuple[tuple[int, int], ...]:
    return tuple((int(key, 16), int(until)) for key, until in zip(flat[::2], flat[1::2], strict=True))
