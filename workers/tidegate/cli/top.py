"""``tidegate top``: workers and jobs live in the terminal, straight from the ledger and the telemetry stream."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tidegate.cli.options import Json, Url, gate_for
from tidegate.cli.output import console, print_json
from tidegate.model.job import Progress
from tidegate.model.outcome import Outcome
from tidegate.model.plain import visible
from tidegate.report.units import percent, rate, size

if TYPE_CHECKING:
    from tidegate.collector.aggregate import Aggregate
    from tidegate.collector.source import StreamSource
    from tidegate.telemetry.record import TelemetryRecord

#: What is read of the stream at the start, seconds: enough to fill the last minute.
_LOOK_BACK_S = 60


def top(
    *,
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one look and leave.")] = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Show workers and jobs live. Needs no collector. Ctrl-C leaves; --json prints one look."""
    from tidegate.collector.source import StreamSource

    gate = gate_for(url)
    ledger = gate.ledger()
    with closing(StreamSource(gate.url)) as stream:
        look = _Look(stream)
        if json:
            jobs = ledger.jobs(20)
            print_json(look.document(jobs))
            return
        if once:
            console.print(look.render(ledger.jobs(20)))
            return
        with Live(
            look.render(ledger.jobs(20)), console=console, auto_refresh=False, screen=console.is_terminal
        ) as live:
            while True:
                time.sleep(interval)
                live.update(look.render(ledger.jobs(20)), refresh=True)


class _Look:
    """Follows the stream from a minute ago."""

    def __init__(self, stream: StreamSource) -> None:
        from tidegate.collector.aggregate import Aggregate

        self._stream = stream
        self._aggregate: Aggregate = Aggregate()
        self._aggregate.position = f"{max(0, stream.server_ms() - _LOOK_BACK_S * 1000)}-0"

    def _follow(self) -> int:
        while True:
            entries, position = self._stream.read(self._aggregate.position, count=1000, block_ms=0)
            if position == self._aggregate.position:
                break
            self._aggregate.add(entries, position)
        now_ms = self._stream.server_ms()
        self._aggregate.expire(now_ms)
        return now_ms

    def document(self, jobs: list[Progress]) -> dict[str, object]:
        """One look for scripts: the collector's overview, the jobs, the workers."""
        from tidegate.collector.jobs import JobsSnapshot
        from tidegate.collector.view import job_row, overview

        now_ms = self._follow()
        view = overview(self._aggregate, JobsSnapshot(tuple(jobs)), now_ms)
        del view["totals"]  # a minute's worth only: the collector knows the totals
        records = [record for _, record in self._aggregate.workers.values()]
        workers = [{"worker": visible(r.worker), "host": visible(r.host), "pid": r.pid} for r in records]
        return view | {"job_rows": [job_row(job) for job in jobs], "workers": workers}

    def render(self, jobs: list[Progress]) -> RenderableType:
        """One look for people."""
        from tidegate.collector.jobs import JobsSnapshot
        from tidegate.collector.view import overview

        now_ms = self._follow()
        view = overview(self._aggregate, JobsSnapshot(tuple(jobs)), now_ms)
        now, minute = view["now"], view["last_minute"]
        success = minute["success_rate"]
        head = Text.assemble(
            ("tidegate top", "bold"),
            f" {now['workers']} workers  {now['running']:,} of {now['concurrency']:,} running  "
            f"{rate(minute['items_per_s'])}  {'—' if success is None else percent(success)} succeeded  "
            f"{size(now['memory_bytes'])}",
        )
        records = sorted((record for _, record in self._aggregate.workers.values()), key=lambda record: record.worker)
        return Group(head, Text(""), _workers(records), Text(""), _jobs(jobs))


def _workers(records: list[TelemetryRecord]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for position, name in enumerate(("WORKER", "RUN", "OF", "WAIT", "IDLE", "CPU", "MEMORY", "LIMIT")):
        table.add_column(name, justify="left" if position == 0 else "right", no_wrap=True)
    for record in records[:30]:
        slot_ns = record.interval_ns * record.slots
        waiting = sum(lane.waiting_queued + lane.waiting_limited + lane.waiting_backoff for lane in record.lanes)
        table.add_row(
            Text(f"{visible(record.host, 14)}:{record.pid}"),
            f"{sum(lane.running for lane in record.lanes):,}",
            f"{sum(lane.concurrency for lane in record.lanes):,}",
            f"{waiting:,}",
            percent(min(1.0, record.idle_ns / slot_ns)) if slot_ns else "—",
            percent(record.cpu_ns / record.interval_ns) if record.interval_ns else "—",
            size(record.memory_bytes),
            size(record.memory_limit_bytes) if record.memory_limit_bytes else "—",
        )
    if not records:
        table.add_row(Text("no worker was heard of lately", style="bright_black"), *[""] * 7)
    return table


def _jobs(jobs: list[Progress]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for name in ("TASK", "JOB", "", "DONE", "FAILED", "STATE"):
        right = name in ("DONE", "FAILED")
        table.add_column(name, justify="right" if right else "left", no_wrap=True, ratio=1 if name == "TASK" else None)
    for job in jobs:
        failed = job.done - job.outcomes.get(Outcome.SUCCEEDED, 0)
        table.add_row(
            Text(visible(job.task, 60)),
            Text(visible(job.job_id[:8], 64)),
            ProgressBar(total=max(1, job.total), completed=job.done, width=12),
            f"{job.done:,}/{job.total:,}",
            Text(f"{failed:,}", style="red" if failed else ""),
            "paused" if job.paused and not job.ended else str(job.state),
        )
    return table
