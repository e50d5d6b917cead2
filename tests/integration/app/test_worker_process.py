"""The worker beside a test: started, found wanting, and never left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from tidegate import ConfigurationError
from tidegate.testing import WorkerProcess

_APP = """
    from tidegate import Tidegate

    gate = Tidegate()

    @gate.task
    def double(number):
        return 2 * number
"""

_TEST = """
    import sys
    from tidegate.testing import WorkerProcess

    worker = WorkerProcess("shop:gate", sys.argv[1]).start()
    print(worker.pid, flush=True)
    sys.stdin.read()
"""


def test_a_worker_that_cannot_start_says_why(tmp_path: Path, ledger_url: str) -> None:
    with pytest.raises(ConfigurationError, match="did not start: tidegate: there is no module 'nowhere'"):
        WorkerProcess("nowhere:gate", ledger_url, folder=tmp_path).start()


@pytest.mark.slow
def test_a_killed_test_leaves_no_worker_behind(tmp_path: Path, ledger_url: str) -> None:
    (tmp_path / "shop.py").write_text(textwrap.dedent(_APP))
    command = [sys.executable, "-c", textwrap.dedent(_TEST), ledger_url]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout is not None
        supervisor = psutil.Process(int(test.stdout.readline()))
        family = [supervisor, *supervisor.children(recursive=True)]
        test.send_signal(signal.SIGKILL)

    assert len(family) == 3, "the supervisor, what processes are forked from, and one process"
    _, alive = psutil.wait_procs(family, timeout=60)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
