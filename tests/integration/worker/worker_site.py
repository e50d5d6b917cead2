"""A site: an app on an empty server, and real worker trees (``python -m tidegate worker``) that a test starts and kills."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from worker_tasks import register

from tidegate import Tidegate
from tidegate.testing.chaos import witness

HERE = Path(__file__).parent

PATIENCE_S = 60.0


def wait_until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """What ``condition`` returns once it is true."""
    deadline = time.monotonic() + patience_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience_s:g} s: {what}")
        time.sleep(0.01)


class Tree:
    """One supervisor and its processes."""

    def __init__(
        self, site: Site, number: int, app: str, processes: int, settings: dict[str, Any], prefix: Sequence[str] = ()
    ) -> None:
        self.log_path = site.folder / f"worker-{number}.log"
        environment = {
            **os.environ,
            "TIDEGATE_URL": site.url,
            "TIDEGATE_STATE_DIR": str(site.folder / f"state-{number}"),
            "WITNESS": str(site.witness),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(site.folder), *(path for path in sys.path if path)]),
            **{f"TIDEGATE_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.site = site
        self.processes = processes
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tidegate", "worker", app, "--processes", str(processes)],
                env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=site.folder,
            )  # fmt: skip
        self.name = f"-{self.process.pid}."

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def workers(self) -> list[dict[str, str]]:
        """Its processes that registered with the ledger."""
        return [worker for worker in self.site.gate.ledger().workers() if self.name in worker["name"]]

    def ready(self) -> Tree:
        """Wait until every process consumes."""

        def all_ready() -> bool:
            assert self.process.poll() is None, self.log
            return self.log.count(" ready worker=") >= self.processes and len(self.workers()) >= self.processes

        wait_until(all_ready, "worker processes are ready")
        return self

    def children(self) -> list[psutil.Process]:
        """Live worker processes."""
        return self._named("tidegate.worker.process")

    def templates(self) -> list[psutil.Process]:
        """What worker processes are forked from: one, as a rule."""
        return self._named("tidegate.worker.template")

    def _named(self, module: str) -> list[psutil.Process]:
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if module in child.cmdline() and child.status() != "zombie":
                        found.append(child)
        return found

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """Its exit code."""
        return self.process.wait(patience_s)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill_all(self) -> None:
        """The whole tree at once, as a power cut would."""
        children = [*self.children(), *self.templates()]
        self.process.kill()
        for child in children:
            child.kill()
        self.process.wait()
        psutil.wait_procs(children, timeout=PATIENCE_S)

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGQUIT)
            try:
                self.wait(20)
            except subprocess.TimeoutExpired:
                self.kill_all()


class Site:
    """An app, its server's address, a witness file, and the trees that were started."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.witness = folder / "witness"
        self.witness.touch()
        self.gate = register(Tidegate(url))
        self.trees: list[Tree] = []

    def start(
        self, processes: int = 1, app: str = "worker_app:gate", prefix: Sequence[str] = (), **settings: Any
    ) -> Tree:
        """A tree, not ready yet. ``prefix``: a program that starts it."""
        tree = Tree(self, len(self.trees), app, processes, settings, prefix)
        self.trees.append(tree)
        return tree

    def task(self, name: str) -> Any:
        return self.gate.tasks[name]

    def testimony(self, job: Any) -> witness.Testimony:
        """What really ran."""
        return witness.read(self.witness, job.id)

    def outcomes(self, job: Any) -> dict[str, int]:
        """Outcomes that occurred, by name."""
        return {outcome.value: count for outcome, count in job.progress().outcomes.items() if count}

    def close(self) -> None:
        for tree in self.trees:
            tree.clean_up()
        self.gate.close()
