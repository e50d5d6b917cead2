"""Worker processes are forked from a template that has everything imported, so that a dead one is replaced at once."""

from __future__ import annotations

import psutil
from worker_site import Site, wait_until


def test_a_dead_process_is_replaced_from_the_template_and_belongs_to_the_supervisor(site: Site) -> None:
    tree = site.start(processes=2).ready()
    [template] = tree.templates()
    before = {child.pid for child in tree.children()}
    for child in tree.children():
        child.kill()
    wait_until(lambda: len({child.pid for child in tree.children()} - before) == 2, "both were replaced")
    assert tree.templates() == [template], "the same one made them"
    assert {child.ppid() for child in tree.children()} == {tree.process.pid}, "so that it can wait for them"
    wait_until(lambda: template.children() == [], "what it forks in between is gone")
    job = site.task("double").map(range(100))
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 100}
    assert tree.stop() == 0
    wait_until(lambda: not template.is_running(), "the template ended with the supervisor")


def test_without_its_template_a_process_is_replaced_all_the_same(site: Site) -> None:
    tree = site.start().ready()
    [template], [child] = tree.templates(), tree.children()
    template.kill()
    psutil.wait_procs([template], timeout=30)
    child.kill()
    wait_until(lambda: [one.pid for one in tree.children()] not in ([], [child.pid]), "it was replaced")
    job = site.task("double").map(range(100))
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 100}
    assert tree.stop() == 0


def test_no_code_of_the_app_runs_in_the_template_and_processes_do_not_share_their_chances(site: Site) -> None:
    """Jitter that is the same in all processes would bring all retries back at once."""
    (site.folder / "noted.py").write_text(
        "import os, random\n"
        "from pathlib import Path\n"
        "from worker_app import gate\n"
        "with open(Path(__file__).parent / 'loaded', 'a') as file:\n"
        "    print(os.getpid(), random.random(), file=file)\n"
    )
    tree = site.start(app="noted:gate", processes=3).ready()
    rows = [line.split() for line in (site.folder / "loaded").read_text().splitlines()]
    pids = {int(pid) for pid, _ in rows}
    assert (
        {child.pid for child in tree.children()}
        <= pids
        <= {child.pid for child in tree.children()} | {tree.process.pid}
    )
    assert len({chance for _, chance in rows}) == len(rows)
    assert tree.stop() == 0
