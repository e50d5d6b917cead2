"""The Lua scripts, one file per operation, and how they are put together.

A line ``--- @include NAME`` is replaced by ``include/NAME.lua``, which may include others, when the script is loaded. A
script is sent by its SHA-1; a server that does not know it (a restart, ``SCRIPT FLUSH``, a failover) is told it once more.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

_INCLUDE = re.compile(r"^--- @include ([a-z_]+)$", re.MULTILINE)
_SHEBANG = re.compile(r"\A#!lua[^\n]*")

OPERATIONS = (
    "open",
    "append",
    "seal",
    "feed",
    "claim",
    "commit",
    "renew",
    "touch_ticket",
    "hold",
    "resume",
    "cancel",
    "sweep",
    "progress",
    "heartbeat",
    "forget",
    "sweep_turn",
    "remains",
    "announce",
    "index",
)


@dataclass(frozen=True, slots=True)
class Script:
    """One operation: its text with the includes in place, and the SHA-1 that the server knows it by."""

    name: str
    text: str
    sha: str

    @classmethod
    def of(cls, name: str, text: str) -> Script:
        return cls(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    def without_flags(self) -> Script:
        """For servers before Redis 7, which do not know the first line; they let a script that wrote go on writing."""
        return Script.of(self.name, _SHEBANG.sub("", self.text))


@cache
def load(name: str) -> Script:
    """The script of an operation.

    >>> load("claim").name
    'claim'
    """
    folder = resources.files(__package__)

    def included(match: re.Match[str]) -> str:
        return _INCLUDE.sub(included, folder.joinpath("include", f"{match[1]}.lua").read_text(encoding="utf-8"))

    return Script.of(name, _INCLUDE.sub(included, folder.joinpath(f"{name}.lua").read_text(encoding="utf-8")))
