"""Text from outside, made safe to show."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from tidegate.model.plain import visible, visible_block


@given(st.text(alphabet=st.characters(), max_size=200))
def test_nothing_invisible_is_left(text: str) -> None:
    shown = visible(text)

    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}]
    shown.encode("utf-8")


@given(st.text(max_size=200))
def test_a_block_keeps_its_lines(text: str) -> None:
    assert visible_block(text).count("\n") == text.count("\n")


def test_length_is_bounded_and_the_cut_is_shown() -> None:
    assert visible("x" * 501) == "x" * 500 + "…"
    assert visible("x" * 500) == "x" * 500
