"""What the model does step by step, the real scripts do on a real server, reply for reply and key for key."""

from __future__ import annotations

from random import Random

import pytest
from protocol_explore import explore, wander
from protocol_replay import Replay

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(("faults", "seeds"), [(0, 10), (2, 40), (6, 60)])
def test_random_histories(ledger_url, faults, seeds):
    sizes = (2, 1, 3)
    for seed in range(seeds):
        replay = Replay(ledger_url, sizes)
        try:
            replay.follow(wander(Random(seed), faults, sizes))
        finally:
            replay.close()


def test_the_deepest_histories_of_the_explored_space(ledger_url):
    """A breadth-first search reaches its last states by the longest of the shortest ways."""
    explored = explore(1, sizes=(2,))
    states = list(explored.origin)
    for last in [*states[-20:], *states[:: max(1, len(states) // 40)]]:
        path, state = [], last
        while (via := explored.origin[state]) is not None:
            path.append((via[0], via[1], state))
            state = via[0]
        if path:
            replay = Replay(ledger_url, (2,))
            try:
                replay.follow(path[::-1])
            finally:
                replay.close()
