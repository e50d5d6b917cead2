"""Nothing is lost and nothing is counted twice, whatever is killed: the short form of every storm.

They measure how soon work goes on, so they run one after the other: ``make chaos-short``. The long form, with the figures of
docs/reliability.md, is run by ``make chaos``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from storm.catalogue import STORMS
from storm.row import Scale

SEED = 20261121


@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", STORMS)
def test_the_promises_hold_in_a_storm(name: str, tmp_path: Path) -> None:
    """The fault happened, nothing was lost, nothing was committed twice, and the storm's own bounds hold."""
    row = STORMS[name](Scale(long=False, seed=SEED, folder=tmp_path))

    assert not row.problems
