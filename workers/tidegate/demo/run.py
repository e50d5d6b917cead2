"""The demo itself: two jobs at once, their progress, their reports."""

from __future__ import annotations

import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tidegate.app import Tidegate
from tidegate.demo import app
from tidegate.demo.http_server import DemoServer, Served
from tidegate.demo.interrupts import Interrupts
from tidegate.demo.page import as_page
from tidegate.demo.stack import Stack
from tidegate.job import Job
from tidegate.progress import show_progress
from tidegate.report import Report

REQUESTS = 2_000
_LOOK_S = 0.1
#: The last telemetry of the workers is on its way when the last item is committed.
_LAST_TELEMETRY_S = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the demo found out."""

    reports: dict[str, Report]
    served: Served
    page: Path
    seconds: float
    sources: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether every page was fetched in the end."""
        return self.reports["crawl"].facts.progress.done == REQUESTS and not self.reports["crawl"].facts.unsuccessful

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "reports": {name: report.to_dict() for name, report in self.reports.items()},
            "sources": self.sources,
            "server": {
                "requests": self.served.total(),
                "by_status": {str(status): count for status, count in sorted(self.served.by_status.items())},
                "slow": self.served.slow,
            },
            "page": str(self.page),
            "seconds": round(self.seconds, 3),
        }


def run(console: Console, *, page: Path | None = None) -> Shown:
    """Run both workloads and come back with everything stopped and tidied up. ``console`` gets progress and addresses.

    ``page``: where the HTML report goes (default: ``tidegate-report.html`` here, or in the folder for temporary files).
    ``KeyboardInterrupt`` after Ctrl-C, with everything stopped as well.
    """
    began = time.monotonic()
    page = page or _writable_page()
    with (
        Interrupts() as interrupts,
        DemoServer(rate=app.SERVER_RATE, burst=app.SERVER_BURST) as web,
        Stack(interrupts, f"{app.__name__}:gate", processes=2, collector=True) as stack,
    ):
        console.print(f"Valkey, two worker processes and a collector run in {stack.folder}", soft_wrap=True)
        gate = app.build(stack.url)
        try:
            jobs = _submit(gate, web.address)
            console.print(f"dashboard {stack.collector_address()} (while the demo runs)", soft_wrap=True)
            _watch(gate, jobs, stack, console)
            time.sleep(_LAST_TELEMETRY_S)
            reports = {name: job.report() for name, job in jobs.items()}
            sources = _summary(jobs["sources"])
        finally:
            gate.close()
        page.write_text(as_page(reports), encoding="utf-8")
        console.print("stopping", end=" ")
    console.print("done: every process has ended")
    return Shown(
        reports=reports, served=web.served, page=page.absolute(), seconds=time.monotonic() - began, sources=sources
    )


def _submit(gate: Tidegate, address: str) -> dict[str, Job[Any]]:
    pages = [f"{address}/page/{number}" for number in range(REQUESTS)]
    sources = gate.map(f"{app.__name__}.sources", list(standard_library()))
    crawl = gate.map(f"{app.__name__}.crawl", pages)
    return {"sources": sources, "crawl": crawl}


def standard_library() -> Iterator[str]:
    """Every Python file of the running Python's standard library, its tests included."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if not {"site-packages", "dist-packages"} & set(path.parts):
            yield str(path)


def _watch(gate: Tidegate, jobs: dict[str, Job[Any]], stack: Stack, console: Console) -> None:
    with show_progress(gate, console) as watcher:
        left = dict(jobs)
        while left:
            stack.check()
            for name, job in list(left.items()):
                stands = job.progress()
                watcher(stands)
                if stands.ended:
                    del left[name]
            time.sleep(_LOOK_S)


def _summary(job: Job[Any]) -> dict[str, Any]:
    lines = functions = files = 0
    longest: tuple[int, int] = (0, 0)
    for index, value in job.results():
        files, lines, functions = files + 1, lines + value["lines"], functions + value["functions"]
        longest = max(longest, (value["longest"], index))
    paths = list(standard_library())
    broken = [
        {
            "file": str(failure.arguments),
            "error": f"{failure.error_type}: {failure.message}",
            "attempts": failure.attempts,
        }
        for failure in job.failures()
    ]
    return {
        "files": files,
        "lines": lines,
        "functions": functions,
        "longest_function_lines": longest[0],
        "longest_function_file": paths[longest[1]] if files else "",
        "broken": broken,
    }


def _writable_page() -> Path:
    here = Path("tidegate-report.html")
    try:
        with here.open("a"):
            return here
    except OSError:
        return Path(tempfile.gettempdir()) / here
