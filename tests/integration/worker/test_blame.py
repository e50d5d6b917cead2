"""Who ends a process is charged for it, and nobody else, however many ran beside it and however the process ended."""

from __future__ import annotations

import pytest
from worker_site import Site, wait_until

from tidegate.testing.chaos import witness

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("task", ["villain", "avillain"])
@pytest.mark.parametrize(("how", "runs"), [("segv", 3), ("abort", 3), ("exit", 3), ("killed", 4)])
def test_the_villain_among_four_is_given_up_and_the_others_are_innocent(
    site: Site, task: str, how: str, runs: int
) -> None:
    """Killed from outside, it is not known at first, and runs once more: alone."""
    tree = site.start(lease_s=60, slots=2).ready()
    items = ["harmless"] * 24
    items[9] = how
    job = site.task(task).map(items, batch_size=12)
    job.wait(timeout=100)
    assert site.outcomes(job) == {"succeeded": 23, "crashed": 1}
    [failure] = job.failures()
    assert (failure.index, failure.attempts) == (9, 3)
    assert site.testimony(job).by_index[9] == runs
    ended = witness.read(f"{site.witness}.ended", job.id).by_index
    # An item writes its note as the last thing it does, and may be struck between that and its return: one, by a hair.
    assert sum(ended.values()) - len(ended) <= 1, "no innocent ended twice"
    assert len(ended) == 23
    charged = [line.split("charged_items=")[1] for line in tree.log.splitlines() if "charged_items=[" in line]
    assert [line.startswith("[9]") for line in charged] == [True] * 3
    assert ("suspected_items=[" in tree.log) == (how == "killed")
    assert job.progress().lost_leases == 0
    assert tree.stop() == 0


def test_a_process_that_is_killed_by_somebody_costs_nobody_a_crash(site: Site) -> None:
    """Each time, two items run that were never struck before: alone, an item would be charged."""
    tree = site.start(lease_s=60, slots=1).ready()
    doors = [site.folder / f"door {number}" for number in range(4)]
    job = site.task("wait_for_file").map([str(door) for door in doors for _ in range(2)], batch_size=2)
    for number, door in enumerate(doors):
        wait_until(lambda n=number: {2 * n, 2 * n + 1} <= {*site.testimony(job).by_index}, "the two at this door run")
        [child] = tree.children()
        child.kill()
        wait_until(lambda kills=number + 1: tree.log.count(" ready worker=") > kills, "another took its place")
        door.touch()
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 8}
    assert site.testimony(job).by_index == dict.fromkeys(range(8), 2)
    assert "charged_items=[" not in tree.log, tree.log
    assert tree.log.count("suspected_items=[") == 4
    assert tree.stop() == 0
