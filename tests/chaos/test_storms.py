"""Nothing is lost and nothing is counted twice, whatever is killed: the short form of every storm.

The long form, with the figures of docs/reliability.md, is run by ``make chaos``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from storm.calls import every_step, lost_replies
from storm.killed import kill_children, kill_trees, poison
from storm.producers import producer_killed, ten_million
from storm.row import Row, Scale
from storm.server import scripts_flushed_and_clients_killed, server_full, server_killed, server_stopped
from storm.stopped import rolling_restarts, zombies
from storm.tickets import tickets

SEED = 20261121


@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "storm",
    [
        kill_children,
        kill_trees,
        zombies,
        lost_replies,
        every_step,
        tickets,
        poison,
        rolling_restarts,
        server_killed,
        server_full,
        server_stopped,
        scripts_flushed_and_clients_killed,
        producer_killed,
        ten_million,
    ],
    ids=lambda storm: storm.__name__,
)
def test_the_promises_hold_in_a_storm(storm: Callable[[Scale], Row], tmp_path: Path) -> None:
    """The fault happened, nothing was lost, nothing was committed twice, and the storm's own bounds hold."""
    row = storm(Scale(long=False, seed=SEED, folder=tmp_path))

    assert not row.problems
