"""The page of results keeps what it has: a storm that is run again replaces its own row and no other."""

from __future__ import annotations

from storm.row import Row
from storm.table import HEAD, Run, line, merged


def _line(fault: str, load: str, *, long: bool) -> str:
    return line(Row(fault=fault, load=load, verdict=None, proof={"kills": 1}), Run(long=long, seed=7, took_s=3))


def test_a_row_that_is_run_again_is_replaced_in_its_place_and_the_others_stay() -> None:
    page = merged("", [_line("fire", "1", long=False), _line("flood", "1", long=False)])
    page = merged(page, [_line("fire", "2", long=True)])

    rows = page.removeprefix(HEAD).splitlines()
    assert [row.split(" | ")[:2] for row in rows] == [["| fire", "2"], ["| flood", "1"]]


def test_a_short_run_does_not_replace_a_long_one() -> None:
    page = merged("", [_line("fire", "1,000,000 items", long=True)])

    assert merged(page, [_line("fire", "20 items", long=False)]) == page
    assert "2 items" in merged(page, [_line("fire", "2 items", long=True)])


def test_a_row_says_which_run_it_comes_from_and_that_a_fault_did_not_happen() -> None:
    row = line(
        Row(fault="fire", load="1", verdict=None, proof={"kills": 0}, bounds={"lost, s": (2.0, 1.0)}),
        Run(long=True, seed=7, took_s=3),
    )

    assert "long, seed 7, 3 s; Python 3." in row
    assert "**no**: the fault did not happen: kills; lost, s is 2, at most 1" in row
