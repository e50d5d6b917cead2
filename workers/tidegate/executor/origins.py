"""The line of the user's code that submitted something, for the end of an asynchronous stack."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent)


def caller() -> str:
    """``file:line in function`` of the nearest frame outside of this package. About half a microsecond: once for each run.

    >>> caller().endswith("in <module>")
    True
    """
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_HERE) and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
