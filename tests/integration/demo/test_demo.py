"""``tidegate demo`` as a stranger types it: what it shows, and that nothing of it is left behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Demo:
    """The command, started in a folder of its own with a folder for temporary files of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.temporary = folder, folder / "tmp"
        self.temporary.mkdir()
        self.output, self.notes = folder / "stdout", folder / "stderr"
        with self.output.open("wb") as output, self.notes.open("wb") as notes:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tidegate", "demo", *arguments],
                cwd=folder,
                env={
                    **os.environ,
                    "TMPDIR": str(self.temporary),
                    "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                },
                stdout=output,
                stderr=notes,
            )

    def family(self) -> list[psutil.Process]:
        """Every living process that was started by the demo, or by what it started."""
        found = []
        for process in psutil.process_iter():
            try:
                known = process.environ().get("TMPDIR") == str(self.temporary)
                if known and process.status() != psutil.STATUS_ZOMBIE and process.pid != self.process.pid:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def private(self) -> Path | None:
        """The folder that it made for itself."""
        return next(iter(self.temporary.glob("tidegate-demo-*")), None)

    def log(self, name: str) -> str:
        private = self.private()
        path = private / name if private else None
        return path.read_text(errors="replace") if path and path.exists() else ""

    def said(self) -> str:
        return self.output.read_text(errors="replace") + self.notes.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], object], what: str, timeout_s: float = 200) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"it ended before {what}: {self.said()}"
            assert time.monotonic() < deadline, f"{what} did not happen: {self.said()}"
            time.sleep(0.005)

    def assert_nothing_is_left(self, *files: str) -> None:
        """No process, once those that were killed are dead, and no file but ``files``."""
        deadline = time.monotonic() + 60
        while self.family():
            assert time.monotonic() < deadline, self.family()
            time.sleep(0.05)
        assert list(self.temporary.iterdir()) == []
        assert {path.name for path in self.folder.iterdir()} <= {"stderr", "stdout", "tmp", *files}

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for process in self.family():
            process.kill()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(*arguments: str) -> Demo:
        started.append(Demo(tmp_path, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_the_whole_demo(demo: Any) -> None:
    """One run, looked at from all sides: it is too long to be repeated for each of them."""
    one = demo("--json")
    code = one.process.wait(280)
    assert code == 0, one.said()
    document = json.loads(one.output.read_text())
    every_file_is_parsed_or_told_as_broken_without_a_retry(document)
    every_page_is_fetched_and_the_limit_is_honoured(document)
    the_page_stands_alone_and_has_both_reports(one, document)
    progress_and_the_dashboards_address_are_told_while_it_runs(one)
    one.assert_nothing_is_left("tidegate-report.html")


def every_file_is_parsed_or_told_as_broken_without_a_retry(document: dict[str, Any]) -> None:
    report, found = document["reports"]["sources"], document["sources"]
    assert report["job"]["state"] == "done"
    assert found["files"] + len(found["broken"]) == report["items"]["total"]
    assert found["files"] > 500
    assert found["functions"] > 1000
    assert Path(found["longest_function_file"]).is_file()
    assert all(broken["attempts"] == 1 for broken in found["broken"])
    assert all(Path(broken["file"]).is_file() and "line" in broken["error"] for broken in found["broken"])


def every_page_is_fetched_and_the_limit_is_honoured(document: dict[str, Any]) -> None:
    items = document["reports"]["crawl"]["items"]
    assert items["total"] == items["succeeded"] == 2000
    by_status = document["server"]["by_status"]
    assert by_status["200"] >= 2000
    assert by_status["503"] > 50
    # A handful of more than 2,000 requests: all that can be on the way at once fits the server's burst, however late it is.
    assert by_status.get("429", 0) <= 20


def the_page_stands_alone_and_has_both_reports(demo: Demo, document: dict[str, Any]) -> None:
    page = Path(document["page"])
    assert page == demo.folder / "tidegate-report.html"
    text = page.read_text()
    assert 'id="sources"' in text
    assert 'id="crawl"' in text
    assert 'src="http' not in text


def progress_and_the_dashboards_address_are_told_while_it_runs(demo: Demo) -> None:
    notes = demo.notes.read_text()
    assert "dashboard http://127.0.0.1:" in notes
    assert "2000/2000" in notes


MOMENTS: dict[str, Callable[[Demo], object]] = {
    "its folder is made": lambda demo: demo.private() is not None,
    "its server starts": lambda demo: demo.log("valkey/valkey.log"),
    "its worker starts": lambda demo: demo.private() is not None and (demo.private() / "worker.log").exists(),  # type: ignore[operator]
    "its worker talks": lambda demo: demo.log("worker.log"),
    "the dashboard is there": lambda demo: "dashboard" in demo.said(),
    "the reports are made": lambda demo: "2000/2000" in demo.said(),
}

#: What the demo says when everything has been done and tidied up: a signal that comes later finds nothing to interrupt.
AT_THE_END = "done: every process has ended"


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_at_any_moment_leaves_nothing_behind(demo: Any, moment: str) -> None:
    one = demo()
    one.wait_until(lambda: MOMENTS[moment](one) or AT_THE_END in one.said(), moment, timeout_s=200)
    one.process.send_signal(signal.SIGINT)
    code = one.process.wait(120)
    assert code == 130 or (code == 0 and AT_THE_END in one.said()), one.said()
    one.assert_nothing_is_left("tidegate-report.html")
    assert "Traceback" not in one.said()


def test_ctrl_c_twice_still_tidies_up(demo: Any) -> None:
    one = demo()
    one.wait_until(lambda: MOMENTS["the dashboard is there"](one), "the dashboard")
    for _ in range(3):
        one.process.send_signal(signal.SIGINT)
    assert one.process.wait(120) == 130
    one.assert_nothing_is_left("tidegate-report.html")


def test_when_the_demo_itself_is_killed_its_processes_end_too(demo: Any) -> None:
    one = demo()
    one.wait_until(lambda: MOMENTS["the dashboard is there"](one), "the dashboard")
    one.process.kill()
    one.process.wait()
    deadline = time.monotonic() + 60
    while one.family():
        assert time.monotonic() < deadline, one.family()
        time.sleep(0.05)


def test_a_page_that_cannot_be_written_is_told_before_anything_starts(demo: Any) -> None:
    one = demo("--html", "no/such/folder/page.html")
    assert one.process.wait(60) == 2
    assert "no such folder" in one.said()
