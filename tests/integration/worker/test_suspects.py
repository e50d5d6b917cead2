"""Suspects run alone in their process; nobody waits for that for ever, whatever a suspect does and waits for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from worker_site import Site, Tree, wait_until

from tidegate.ledger.port import Committed, Lease, Settlement
from tidegate.worker.work import SUSPECTED

pytestmark = pytest.mark.chaos


def _killed_while_running(site: Site, tree: Tree, job: Any, items: int) -> None:
    """The one process dies without a last word while ``items`` items run: all of them are suspects."""
    wait_until(lambda: len(site.testimony(job).by_index) == items, "they run")
    [child] = tree.children()
    child.kill()
    wait_until(lambda: tree.log.count(" ready worker=") == 2, "another process took its place")
    wait_until(lambda: "suspected_items=[" in tree.log, "what it held was handed back")


def test_suspects_that_wait_for_items_of_another_job_in_their_only_process_get_them(site: Site, tmp_path: Path) -> None:
    gone_on = tmp_path / "go"
    tree = site.start(lease_s=2, slots=4).ready()
    job = site.task("asks_another").map([str(gone_on)] * 2)
    _killed_while_running(site, tree, job, 2)
    gone_on.touch()
    job.wait(timeout=100)
    assert [value for _, value in job.results()] == [42, 42]
    assert tree.stop() == 0


def test_a_suspect_that_takes_for_ever_does_not_hold_up_other_jobs(site: Site, tmp_path: Path) -> None:
    end = tmp_path / "end"
    tree = site.start(lease_s=2, slots=4).ready()
    slow = site.task("wait_for_file").map([str(end)] * 2)
    _killed_while_running(site, tree, slow, 2)
    wait_until(lambda: site.testimony(slow).executions >= 3, "one of them runs again, alone")
    quick = site.task("double").map(range(100), batch_size=10)
    quick.wait(timeout=60)
    assert slow.progress().done == 0
    end.touch()
    slow.wait(timeout=60)
    assert site.outcomes(slow) == {"succeeded": 2}
    assert tree.stop() == 0


def test_a_slow_suspect_that_ends_its_process_is_charged_and_who_joined_it_is_not(site: Site, tmp_path: Path) -> None:
    """Else a process with a slow poison item, and others beside it that take long, would die for ever."""
    kill, end, late_end = tmp_path / "kill", tmp_path / "end", tmp_path / "late"
    tree = site.start(lease_s=2, slots=4).ready()
    poison = site.task("kill_after_file").map([str(kill)])
    neighbour = site.task("wait_for_file").map([str(end)])
    wait_until(lambda: len(site.testimony(neighbour).by_index) == 1, "both run")
    _killed_while_running(site, tree, poison, 1)
    end.touch()
    late = site.task("wait_for_file").map([str(late_end)])
    wait_until(lambda: site.testimony(late).by_index, "who came later was not held up for ever")
    wait_until(lambda: site.testimony(poison).by_index[0] >= 2, "the slow one runs again")
    kill.touch()
    poison.wait(timeout=60)
    late_end.touch()
    late.wait(timeout=60)
    neighbour.wait(timeout=60)
    assert site.outcomes(poison) == {"crashed": 1}
    [failure] = poison.failures()
    assert failure.attempts == 3
    assert site.outcomes(late) == site.outcomes(neighbour) == {"succeeded": 1}
    wait_until(lambda: tree.log.count("charged_items=[") >= 3, "each death was said")
    charged = [line for line in tree.log.splitlines() if "charged_items=[" in line]
    assert [poison.id in line for line in charged] == [True] * 3, tree.log
    assert tree.stop() == 0


def test_attempts_of_a_suspect_that_is_put_off_are_remembered_whatever_the_rest_of_its_batch_does(site: Site) -> None:
    job = site.task("fails_until").starmap([("there", 9)] * 2, batch_size=2)
    ledger = site.gate.ledger()
    lease = ledger.claim(job.id, ticket=1, claimer="test/0", nonce="a", lease_ms=60_000)
    assert isinstance(lease, Lease)
    back = Settlement(settled=0, hand_back=True, attempts=bytes(2), crashes=bytes([SUSPECTED, 0]))
    assert isinstance(ledger.commit(lease, back, nonce="b", lease_ms=1000), Committed)
    tree = site.start(lease_s=5, slots=1).ready()
    job.wait(timeout=60)
    assert site.testimony(job).by_index == {0: 3, 1: 3}, "attempts that the task allows"
    assert tree.stop() == 0
