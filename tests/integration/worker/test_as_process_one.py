"""A worker as process 1 of a container: it reaps what is left to it, and a signal stops it as anywhere else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from worker_site import Site, Tree, wait_until

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@pytest.fixture
def contained(site: Site) -> Tree:
    """A worker tree in a process namespace of its own, where its supervisor is process 1."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("process namespaces are not allowed here (unshare --pid)")
    (site.folder / "orphans.py").write_text(
        "import os, subprocess, sys\n"
        "from worker_app import gate\n"
        "@gate.task(name='orphan')\n"
        "def orphan(path):\n"
        "    # A child that leaves a child behind, which then belongs to process 1 and ends when it may.\n"
        "    code = f'import os, time\\nwhile not os.path.exists({path!r}): time.sleep(0.01)'\n"
        "    leaver = f'import subprocess, sys; subprocess.Popen([sys.executable, \"-c\", {code!r}])'\n"
        "    subprocess.run([sys.executable, '-c', leaver], check=True)\n"
        "    return os.getppid()\n"
    )
    site.gate.task(name="orphan")(print)
    tree = site.start(app="orphans:gate", prefix=UNSHARE)
    wait_until(lambda: " ready worker=" in tree.log, "the worker is ready")
    return tree


def _supervisor(tree: Tree) -> psutil.Process:
    """Process 1 of the namespace, as it is seen from outside."""
    return psutil.Process(tree.process.pid).children()[0]


def test_orphans_are_reaped(site: Site, contained: Tree) -> None:
    go_on = site.folder / "go on"
    job = site.task("orphan").map([str(go_on)] * 3, batch_size=3)
    job.wait(timeout=60)
    assert {value for _, value in job.results()} == {1}, "the supervisor is process 1"
    supervisor = _supervisor(contained)
    left = [
        child
        for child in supervisor.children()
        if not {"tidegate.worker.process", "tidegate.worker.template"} & {*child.cmdline()}
    ]
    assert len(left) == 3, "what the items left behind belongs to the supervisor"
    go_on.touch()
    assert psutil.wait_procs(left, timeout=60)[1] == [], "it was reaped, not left as a zombie"
    assert supervisor.is_running()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_process_one_well(site: Site, contained: Tree, number: int) -> None:
    job = site.task("nap").map([0.05] * 200, batch_size=10)
    wait_until(lambda: job.progress().done > 5, "the job runs")
    _supervisor(contained).send_signal(number)
    assert contained.wait() == 0
    stands = job.progress()
    assert (stands.running_batches, stands.lost_leases) == (0, 0)
    assert site.testimony(job).executed_again == 0


def test_below_a_shell_a_signal_to_the_worker_stops_it_and_the_shell_goes_on(site: Site) -> None:
    """``sh -c 'tidegate worker …; echo $?'``: the shell is process 1 of many images. It forwards nothing; docker signals it
    alone unless the worker is started with exec. What reaches the worker is enough."""
    script = Path(site.folder / "run.sh")
    script.write_text('"$@"\necho "exit code $?"\n')
    tree = site.start(prefix=("sh", str(script)))
    wait_until(lambda: " ready worker=" in tree.log, "the worker is ready")
    os.kill(psutil.Process(tree.process.pid).children()[0].pid, signal.SIGTERM)
    assert tree.wait() == 0
    assert "exit code 0" in tree.log
