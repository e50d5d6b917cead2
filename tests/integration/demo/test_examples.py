"""The examples do what they say: each is run as its first lines tell, against a worker where it needs one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.demo.http_server import DemoServer

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"

pytestmark = pytest.mark.slow


def environment(url: str, state: Path) -> dict[str, str]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    socket = url.removeprefix("unix://")
    return {
        **os.environ,
        "PYTHONPATH": path,
        "TIDEGATE_URL": url,
        "TIDEGATE_BROKER_URL": f"redis+socket://{socket}?virtual_host=0",
        "TIDEGATE_STATE_DIR": str(state),
        "TIDEGATE_GRACE_S": "3",
    }


@contextlib.contextmanager
def worker(app: str, url: str, state: Path) -> Iterator[None]:
    with (state / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tidegate", "worker", app],
            cwd=EXAMPLES,
            env=environment(url, state),
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, (state / "worker.log").read_text()


def run(url: str, state: Path, file: str, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, file, *arguments],
        cwd=EXAMPLES,
        env=environment(url, state),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_example_is_run_by_a_test() -> None:
    here = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in here] == []


def test_checksums(ledger_url: str, tmp_path: Path) -> None:
    with worker("checksums:gate", ledger_url, tmp_path):
        said = run(ledger_url, tmp_path, "checksums.py")
    assert "500 of 500 items" in said
    assert "the first of 500 digests: " in said


def test_fetch(ledger_url: str, tmp_path: Path) -> None:
    with DemoServer(rate=1000, burst=100, broken=0.3) as server, worker("fetch:gate", ledger_url, tmp_path):
        said = run(ledger_url, tmp_path, "fetch.py", *[f"{server.address}/{number}" for number in range(40)])
    assert said.count(" bytes  http") + said.count("failed after 5") == 40
    assert said.count(" bytes  http") > 30
    assert server.served.by_status[503] > 0


def test_an_existing_celery_app(ledger_url: str, tmp_path: Path) -> None:
    with worker("existing_celery:gate", ledger_url, tmp_path):
        said = run(ledger_url, tmp_path, "existing_celery.py")
    assert f"the sum of all prices: {sum(round(n * 1.19, 2) for n in range(10_000)):,.2f}" in said


def test_the_executor_alone(tmp_path: Path) -> None:
    said = run("unix:///nowhere", tmp_path, "executor_alone.py")
    assert "of 200 succeeded" in said


def test_the_polite_crawler(ledger_url: str, tmp_path: Path) -> None:
    said = run(ledger_url, tmp_path, "polite_crawler.py", "--embedded", "--pages", "8")
    assert "32 succeeded" in said
    hosts = [line for line in said.splitlines() if line.startswith("host ")]
    assert len(hosts) == 4
    assert all(line.endswith((", 1 at once at most", ", 2 at once at most")) for line in hosts), hosts
