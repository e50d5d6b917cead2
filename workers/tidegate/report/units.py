"""Numbers as people read them."""

from __future__ import annotations


def duration(ns: float) -> str:
    """A duration given in nanoseconds, three digits.

    >>> duration(950), duration(1_500_000), duration(75e9), duration(0)
    ('950 ns', '1.5 ms', '1 min 15 s', '0 s')
    """
    if ns <= 0:
        return "0 s"
    for below, divisor, unit in ((1e3, 1, "ns"), (1e6, 1e3, "µs"), (1e9, 1e6, "ms"), (60e9, 1e9, "s")):
        if ns < below * 0.9995 or (unit == "s" and ns < below):
            return f"{ns / divisor:.3g} {unit}"
    seconds = round(ns / 1e9)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86_400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3600} h"


def size(number_of_bytes: float) -> str:
    """Bytes.

    >>> size(512), size(3 << 20), size(1.5 * 2**30)
    ('512 B', '3.0 MiB', '1.5 GiB')
    """
    value = float(number_of_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent; never rounded to 0 % or 100 % when it is neither.

    >>> share(1, 4), share(1, 10_000), share(9_999, 10_000), share(0, 0)
    ('25 %', '< 0.1 %', '> 99.9 %', '—')
    """
    if not whole:
        return "—"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.0f} %" if percent == round(percent) else f"{percent:.1f} %"


def percent(value: float) -> str:
    """A share between 0 and 1 in whole per cent.

    >>> percent(0.256)
    '26 %'
    """
    return f"{100 * value:.0f} %"


def rate(per_s: float) -> str:
    """Events per second.

    >>> rate(1234.5), rate(0.25)
    ('1,234/s', '0.25/s')
    """
    return f"{per_s:,.0f}/s" if per_s >= 100 else f"{per_s:.3g}/s"
