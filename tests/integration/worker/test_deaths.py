"""Processes are killed, stopped, hung and poisoned; nothing is lost, nothing is counted twice, nobody else is blamed."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest
from worker_site import Site, wait_until

from tidegate.model.outcome import JobState

pytestmark = pytest.mark.chaos


def _done(job: Any, at_least: int) -> Any:
    return wait_until(lambda: job.progress().done >= at_least, f"{at_least} items are done")


def _complete(site: Site, job: Any, items: int) -> None:
    """Every item has an outcome, one result, and was executed at least once."""
    job.wait(timeout=100)
    assert site.outcomes(job) == {"succeeded": items}
    assert sorted(index for index, _ in job.results()) == list(range(items))
    assert site.testimony(job).executed == items


def test_killed_processes_lose_nothing_and_count_nothing_twice(site: Site) -> None:
    tree = site.start(processes=2, lease_s=60, partial_commit_s=0.1).ready()
    items = 1500
    job = site.task("nap").map([0.004] * items, batch_size=50)
    for kill in range(1, 4):
        _done(job, kill * 250)
        victim = tree.children()[kill % 2 - 1]
        victim.kill()
        psutil.wait_procs([victim], timeout=30)
    _complete(site, job, items)
    seen = site.testimony(job)
    # Each kill interrupts at most what was running: four items at once. What had ended does not run again.
    assert seen.executed_again <= 3 * 4
    progress = job.progress()
    assert progress.lost_leases == 0, "the leases were handed back by the supervisor, not left to expire"
    wait_until(lambda: tree.log.count("replaced in_s") == 3, "each was replaced")
    assert tree.stop() == 0


def test_a_tree_that_is_killed_whole_is_taken_over_when_its_leases_expire(site: Site) -> None:
    first = site.start(processes=2, lease_s=1.5).ready()
    hurry = site.folder / "hurry"
    items = 2000
    job = site.task("nap_until_file").map([str(hurry)] * items, batch_size=40)
    _done(job, 40)
    first.kill_all()
    hurry.touch()
    site.start(lease_s=1.5).ready()
    _complete(site, job, items)
    assert job.progress().lost_leases > 0


def test_a_process_that_sleeps_past_its_lease_commits_nothing_when_it_wakes(site: Site) -> None:
    path = site.folder / "go on"
    sleeper = site.start(lease_s=2.5, sweep_s=0.3).ready()
    job = site.task("wait_for_file").map([str(path)] * 24, batch_size=12)
    wait_until(lambda: job.progress().running_batches == 2, "it has everything")
    # Up before the other sleeps: a process that is silent for half a minute is ended by its supervisor.
    site.start(lease_s=2.5, sweep_s=0.3).ready()
    [process] = sleeper.children()
    process.suspend()
    path.touch()
    job.wait(timeout=100)
    before = job.progress()
    process.resume()
    wait_until(lambda: job.progress().stale_refused > before.stale_refused, "the sleeper was refused")
    _complete(site, job, 24)
    assert job.progress().outcomes == before.outcomes


def test_a_poisonous_item_is_named_charged_alone_and_given_up(site: Site) -> None:
    tree = site.start(lease_s=60).ready()
    job = site.task("killer").map(range(30), batch_size=10)
    job.wait(timeout=100)
    assert site.outcomes(job) == {"succeeded": 28, "crashed": 2}
    failures = {failure.index: failure for failure in job.failures()}
    assert sorted(failures) == [13, 17]
    assert failures[13].outcome.value == "crashed"
    assert failures[13].attempts == 3
    assert "died 3 times" in failures[13].message
    assert "SIGSEGV" in failures[13].traceback or "code 3" in failures[13].traceback
    seen = site.testimony(job)
    assert seen.by_index[13] == seen.by_index[17] == 3
    assert {count for index, count in seen.by_index.items() if index not in (13, 17)} == {1}
    assert job.progress().lost_leases == 0
    assert tree.stop() == 0


def test_an_item_that_holds_the_interpreter_is_ended_by_its_hard_timeout(site: Site) -> None:
    tree = site.start(lease_s=60, slots=2).ready()
    job = site.task("stuck").map(range(8), batch_size=8)
    job.wait(timeout=100)
    assert site.outcomes(job) == {"succeeded": 7, "crashed": 1}
    [failure] = job.failures()
    assert (failure.index, failure.attempts) == (3, 3)
    assert "hard timeout" in failure.traceback
    assert tree.stop() == 0


def test_sigterm_drains_and_another_worker_goes_on_without_repeating_anything(site: Site) -> None:
    first = site.start(processes=2).ready()
    hurry = site.folder / "hurry"
    items = 3000
    job = site.task("nap_until_file").map([str(hurry)] * items, batch_size=30)
    _done(job, 20)
    assert first.stop() == 0
    stands = job.progress()
    assert stands.running_batches == 0, "everything was handed back"
    assert 0 < stands.pending < items
    assert first.workers() == []
    hurry.touch()
    second = site.start(processes=2).ready()
    _complete(site, job, items)
    assert site.testimony(job).executed_again == 0
    assert job.progress().lost_leases == 0
    assert second.stop() == 0


def test_the_grace_period_ends_and_what_still_runs_is_handed_back(site: Site) -> None:
    path = site.folder / "go"
    tree = site.start(grace_s=0.5).ready()
    job = site.task("wait_for_file").map([str(path)] * 2, batch_size=2)
    wait_until(lambda: site.testimony(job).executions == 2, "both items run")
    assert tree.stop() == 0, "although its items do not end"
    wait_until(lambda: job.progress().running_batches == 0, "the batch was handed back")
    path.touch()
    site.start().ready()
    _complete(site, job, 2)
    assert job.progress().lost_leases == 0


@pytest.mark.parametrize(
    "signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT,), (signal.SIGINT, signal.SIGINT)]
)
def test_a_second_signal_hands_back_at_once(site: Site, signals: tuple[int, ...]) -> None:
    path = site.folder / "never"
    tree = site.start(grace_s=600).ready()
    job = site.task("wait_for_file").map([str(path)] * 2, batch_size=2)
    wait_until(lambda: site.testimony(job).executions == 2, "both items run")
    for number in signals:
        tree.signal(number)
        wait_until(lambda: "stopping reason" in tree.log, "the first signal was taken")
    assert tree.wait() == 0
    assert job.progress().running_batches == 0
    assert job.progress().ready_batches == 1


def test_processes_drain_when_their_supervisor_is_killed(site: Site) -> None:
    tree = site.start(lease_s=60).ready()
    children = tree.children()
    job = site.task("kill_own_supervisor").map(range(200), batch_size=100)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    assert tree.wait() == -signal.SIGKILL
    wait_until(lambda: job.progress().running_batches == 0, "everything was handed back")
    assert job.progress().pending > 0
    assert job.progress().lost_leases == 0
    assert " stopped after_s" in tree.log


def test_a_crash_loop_is_visible_and_slows_down(site: Site) -> None:
    (site.folder / "looping.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "if os.environ.get('PARENT') != str(os.getpid()):\n    pass\n"
        "import sys\n"
        "if 'tidegate.worker.process' in ' '.join(sys.orig_argv): os._exit(9)\n"
        "from tidegate import Tidegate\ngate = Tidegate()\n@gate.task\ndef work(x): return x\n"
    )
    tree = site.start(app="looping:gate")
    wait_until(lambda: tree.log.count("replaced in_s") >= 5, "five starts")
    waits = [float(line.split("in_s=")[1].split()[0]) for line in tree.log.splitlines() if "replaced in_s" in line][:5]
    assert waits == sorted(waits)
    assert waits[-1] >= 1.0
    assert tree.stop() == 0


def test_an_app_that_its_processes_cannot_start_ends_the_tree_with_its_exit_code(site: Site) -> None:
    (site.folder / "halfway.py").write_text(
        "import sys\n"
        "if 'tidegate.worker.process' in ' '.join(sys.orig_argv): import no_such_module\n"
        "from tidegate import Tidegate\ngate = Tidegate()\n@gate.task\ndef work(x): return x\n"
    )
    tree = site.start(app="halfway:gate", processes=2)
    assert tree.wait() == 2
    assert "no_such_module" in tree.log


def test_a_process_over_its_hard_memory_mark_is_replaced_and_the_job_goes_on(site: Site) -> None:
    tree = site.start(memory_limit_bytes=400 << 20).ready()
    job = site.task("leaky").map([30] * 40, batch_size=2)
    _complete(site, job, 40)
    wait_until(lambda: "memory above the" in tree.log, "it was noticed")
    wait_until(lambda: "replaced in_s" in tree.log, "it was replaced")
    assert job.progress().lost_leases == 0
    assert site.testimony(job).executed_again == 0
    assert tree.stop() == 0


def test_cancelling_a_job_ends_its_running_items(site: Site) -> None:
    site.start(lease_s=1.5).ready()
    job = site.task("async_nap").map([300.0] * 10, batch_size=5)
    wait_until(lambda: site.testimony(job).executed == 10, "the items run")
    job.cancel()
    job.wait(timeout=60)
    assert job.progress().state is JobState.CANCELLED
    assert site.outcomes(job) == {"cancelled": 10}
    assert list(job.failures()) == []


def test_a_rolling_restart_repeats_nothing(site: Site) -> None:
    tree = site.start(processes=2).ready()
    hurry = site.folder / "hurry"
    items = 3000
    job = site.task("nap_until_file").map([str(hurry)] * items, batch_size=20)
    for done in (40, 120, 200):
        _done(job, done)
        replaced = tree.log.count("replaced in_s")
        os.kill(tree.children()[0].pid, signal.SIGTERM)
        wait_until(lambda before=replaced: tree.log.count("replaced in_s") > before, "it was replaced")
    hurry.touch()
    _complete(site, job, items)
    assert site.testimony(job).executed_again == 0
    assert tree.stop() == 0
