"""Items that had ended when their process died do not run again, although nobody had committed them."""

from __future__ import annotations

from typing import Any

import pytest
from worker_site import Site, wait_until

pytestmark = pytest.mark.chaos

#: Longer than any test: what is committed of a batch is committed by the supervisor, or not at all.
NEVER_S = 600


def _kill_when_stopped_at(site: Site, tree: Any, job: Any, last: int) -> None:
    """The one item at work is ``last``, and everything before it has ended."""
    wait_until(lambda: site.testimony(job).by_index[last], f"item {last} runs")
    [child] = tree.children()
    child.kill()
    wait_until(lambda: "lease handed back" in tree.log, "the lease was handed back")


@pytest.mark.parametrize("task", ["mixed", "amixed"])
def test_results_and_failures_of_a_dead_process_are_committed_for_it(site: Site, task: str) -> None:
    tree = site.start(lease_s=60, slots=1, partial_commit_s=NEVER_S).ready()
    gate = site.folder / "gate"
    items = [*range(20), str(gate), *range(21, 30)]
    job = site.task(task).map(items, batch_size=30)
    _kill_when_stopped_at(site, tree, job, 20)
    progress = wait_until(lambda: p if (p := job.progress()).done >= 20 else None, "what had ended is committed")
    assert progress.done == 20
    gate.touch()
    job.wait(timeout=60)
    failed = [n for n in range(30) if n % 7 == 3]
    assert site.outcomes(job) == {"succeeded": 30 - len(failed), "failed": len(failed)}
    assert dict(job.results()) == {n: ["seen", items[n]] for n in range(30) if n not in failed}
    failures = {failure.index: failure for failure in job.failures()}
    assert sorted(failures) == failed
    assert failures[3].arguments == 3
    assert failures[3].message == "3 is not wanted"
    assert "is not wanted" in failures[3].traceback
    assert "raise ValueError" in failures[3].traceback
    seen = site.testimony(job)
    assert {index for index, count in seen.by_index.items() if count > 1} == {20}, "it alone was interrupted"
    assert job.progress().lost_leases == 0
    assert tree.stop() == 0


_DIES_AT_A_COMMIT = """
import os, sys, time
from pathlib import Path
from tidegate.ledger.redis import RedisLedger
from tidegate.testing.chaos import witness
from worker_app import gate
commit = RedisLedger.commit
def dying(self, lease, settlement, **options):
    once = Path(os.environ["WITNESS"]).with_name("died")
    if "tidegate.worker.process" not in " ".join(sys.orig_argv) or once.exists() or not settlement.settled:
        return commit(self, lease, settlement, **options)
    # Be it of a part: the item at the gate runs by then, so that it is known who is interrupted.
    while not witness.read(os.environ["WITNESS"], lease.job_id).by_index[4]:
        time.sleep(0.01)
    once.touch()
    if "{when}" == "after":
        commit(self, lease, settlement, **options)
    os.kill(os.getpid(), 9)
RedisLedger.commit = dying
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("partial_commit_s", [0.05, NEVER_S])
def test_a_process_that_dies_while_it_commits_repeats_nothing_and_counts_nothing_twice(
    site: Site, when: str, partial_commit_s: float
) -> None:
    """Whether the ledger has executed the commit, or the dead process never sent it, and be it of a part or of the rest."""
    (site.folder / "dying.py").write_text(_DIES_AT_A_COMMIT.replace("{when}", when))
    tree = site.start(app="dying:gate", lease_s=60, slots=1, partial_commit_s=partial_commit_s).ready()
    gate = site.folder / "gate"
    if partial_commit_s == NEVER_S:
        gate.touch()
    items = [0, 1, 2, 4, str(gate), 5, 6]
    job = site.task("mixed").map(items, batch_size=7)
    wait_until((site.folder / "died").exists, "the process died")
    wait_until(lambda: tree.log.count(" ready worker=") == 2, "another took its place")
    gate.touch()
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 7}
    assert dict(job.results()) == {n: ["seen", item] for n, item in enumerate(items)}
    again = {index for index, count in site.testimony(job).by_index.items() if count > 1}
    assert again == (set() if partial_commit_s == NEVER_S else {4})
    assert job.progress().lost_leases == 0
    assert tree.stop() == 0


def test_without_the_outcome_log_the_same_items_run_again(site: Site) -> None:
    """A mistake put in on purpose, a supervisor that does not look: were it not noticed, the tests above proved nothing."""
    (site.folder / "forgetful.py").write_text(
        "import tidegate.worker.handback as handback\n"
        "from tidegate.worker.ended import Ended\n"
        "handback.ended_items = lambda *_: Ended()\n"
        "from worker_app import gate\n"
    )
    tree = site.start(app="forgetful:gate", lease_s=60, slots=1, partial_commit_s=NEVER_S).ready()
    gate = site.folder / "gate"
    job = site.task("mixed").map([*range(5), str(gate)], batch_size=6)
    _kill_when_stopped_at(site, tree, job, 5)
    gate.touch()
    job.wait(timeout=60)
    assert site.testimony(job).executed_again == 6
