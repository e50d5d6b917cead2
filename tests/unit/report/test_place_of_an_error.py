"""The file and line that a failure is shown with: the user's, whichever form the trace has."""

from __future__ import annotations

import pytest

from tidegate.report.facts import _place

OWN = """ValueError: no such page
  at parse (/usr/lib/python3.11/ast.py:50)
       return compile(source)
  at fetch (/app/shop.py:8)
       ast.parse(page)
  at call (/app/outer.py:3)
  caused by OSError: x
    at other (/app/other.py:1)
  # attempt 1: ValueError: no such page (ran 27.4 ms)
  # enqueued at /app/views.py:5 in <module>"""

PYTHON = """Traceback (most recent call last):
  File "/app/outer.py", line 3, in call
    fetch()
  File "/app/shop.py", line 8, in fetch
    ast.parse(page)
  File "/venv/site-packages/requests/api.py", line 50, in parse
    raise
ValueError: no such page"""


@pytest.mark.parametrize("trace", [OWN, PYTHON])
def test_the_innermost_frame_that_is_the_users_is_named(trace: str) -> None:
    frame = _place(trace)

    assert frame is not None
    assert (frame["file"], frame["line"], frame["function"]) == ("/app/shop.py", "8", "fetch")


def test_a_failure_inside_libraries_only_names_the_innermost() -> None:
    frame = _place("E: x\n  at parse (/usr/lib/python3.11/ast.py:50)\n  at run (/usr/lib/python3.11/runpy.py:1)")

    assert frame is not None
    assert frame["file"] == "/usr/lib/python3.11/ast.py"


@pytest.mark.parametrize("trace", ["", "Killed by signal 11", "at nowhere (x)", "  at f (x:99999999999999)"])
def test_what_has_no_frame_has_no_place(trace: str) -> None:
    assert _place(trace) is None
