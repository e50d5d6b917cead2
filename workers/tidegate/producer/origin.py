"""Where a job was enqueued: the first frame outside Tidegate, and the item that did it when a task enqueues."""

from __future__ import annotations

import sys
from pathlib import Path

from tidegate.model.job import Origin

_PACKAGE = str(Path(__file__).resolve().parent.parent) + "/"
_DEMO = _PACKAGE + "demo/"  # an app like any other


def capture(parent_job: str = "") -> Origin:
    """The calling line of the app. Only file, line and function are kept: locals may hold secrets.

    >>> capture().function
    '<module>'
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_PACKAGE) or code.co_filename.startswith(_DEMO):
            return Origin(code.co_filename, frame.f_lineno, code.co_qualname, parent_job)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return Origin(parent_job=parent_job)
