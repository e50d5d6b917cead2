"""Every order of steps of a small world keeps the invariants, and without any one rule of the protocol some order breaks."""

from __future__ import annotations

from random import Random

import pytest
from protocol_explore import bad_step, explore, problems, wander
from protocol_model import RIGHT, Rules

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(
    ("faults", "sizes", "at_least"),
    [(0, (2, 1, 1), 500), (1, (1, 1, 1), 40_000), (1, (2, 1), 40_000), (2, (2,), 40_000)],
    ids=[
        "three batches, no fault",
        "three batches, one fault",
        "two batches in parts, one fault",
        "one batch, two faults",
    ],
)
def test_no_order_of_steps_breaks_an_invariant_or_keeps_the_job_from_ending(faults, sizes, at_least):
    explored = explore(faults, sizes=sizes)
    assert not explored.problem, (explored.problem, explored.path(explored.at))
    assert len(explored.origin) >= at_least, "the space was explored"


def test_long_histories_with_many_faults_keep_the_invariants():
    for seed in range(300):
        for before, step, after in wander(Random(seed), faults=5, sizes=(2, 1, 2)):
            assert [*problems(after, 5), *bad_step(before, step, after)] == [], (seed, step)


def test_histories_see_every_kind_of_step():
    seen = {step.name for seed in range(300) for _, step, _ in wander(Random(seed), faults=5)}
    assert seen >= {
        "takes", "executes", "runs", "sends", "puts back", "expires", "gives up ticket", "arrives late", "never arrives",
        "dies", "dies, its request stays", "executes, reply lost", "is sent twice", "drains", "ticket repeated",
        "ticket lost", "is cancelled", "goes back in time",
    }  # fmt: skip


@pytest.mark.parametrize("rule", Rules._fields)
def test_without_this_rule_some_order_breaks(rule):
    without = RIGHT._replace(**{rule: False})
    found = [explore(faults, without, (2,)).problem for faults in (1, 2)]
    assert any(found), f"nobody notices that {rule} is missing"
