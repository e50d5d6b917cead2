"""Text from outside (names, messages, tracebacks) made safe to show: nothing that moves a cursor or forges a line.

HTML is escaped by the templates and JSON by the encoder; this is about what every output shares: control characters, escape
sequences of terminals, characters that reorder text, lone surrogates, and length.
"""

from __future__ import annotations

import unicodedata

#: Categories that draw nothing of their own: controls, invisible formatting (bidirectional overrides among it), surrogates,
#: private use, line and paragraph separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def visible(text: str, limit: int = 500) -> str:
    r"""One line in which every character can be seen, at most ``limit`` of the original's characters long.

    >>> visible("a\x1b[31mb\nc")
    'a\\x1b[31mb\\nc'
    """
    shown = "".join(_shown(character) for character in text[:limit])
    return f"{shown}…" if len(text) > limit else shown


def visible_block(text: str, limit: int = 8000) -> str:
    r"""The same for a text of many lines: line feeds and tabs stay.

    >>> visible_block("a\n\tb\r")
    'a\n\tb\\r'
    """
    shown = "".join(character if character in "\n\t" else _shown(character) for character in text[:limit])
    return f"{shown}\n…" if len(text) > limit else shown


def _shown(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else repr(character)[1:-1]
    if unicodedata.category(character) in _INVISIBLE:
        return f"\\u{ord(character):04x}"
    return character
