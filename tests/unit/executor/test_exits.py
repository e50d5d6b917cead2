"""No hang when the interpreter ends, or forks, in the middle of work: a few tries of exits.py, each another combination."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from exits import Try, tries


@pytest.mark.parametrize("one", list(tries(8, seed=3)), ids=lambda one: f"{one.work}-{one.way}")
def test_the_interpreter_leaves_in_the_middle_of_work(one: Try) -> None:
    assert one.run() == ""


@pytest.mark.parametrize("way", ["exit", "fork"])
def test_it_leaves_while_the_loop_is_being_started(way: str) -> None:
    """The thread that starts it holds a lock that the end of the interpreter, and a forked child's, need too."""
    for _ in range(3):
        assert Try("suspended", way, 0.0).run() == ""
