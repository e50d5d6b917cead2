"""The report on a terminal: rich renderables. Every text from outside goes in as ``Text``, never as markup."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tidegate.model.outcome import Outcome
from tidegate.model.plain import visible
from tidegate.model.stats import TIME_CLASSES, Distribution
from tidegate.report.facts import Facts, FailureGroup
from tidegate.report.findings import Finding, Severity
from tidegate.report.units import duration, percent, rate, share, size

WIDTH = 100

COLOURS = {
    Outcome.SUCCEEDED: "green",
    Outcome.FAILED: "red",
    Outcome.TIMED_OUT: "yellow",
    Outcome.CANCELLED: "bright_black",
    Outcome.CRASHED: "magenta",
}
_MARKS = {
    Severity.CRITICAL: ("✖", "bold red"),
    Severity.WARNING: ("▲", "bold yellow"),
    Severity.INFO: ("●", "bold blue"),
}

#: What the classes of time are called for people.
CLASS_NAMES = {
    "ready": "waiting for a worker",
    "queued": "queued in the worker",
    "limited": "waiting for a limit",
    "backoff": "waiting for a retry",
    "running": "running",
    "settling": "waiting for the commit",
}


def as_text(facts: Facts, findings: tuple[Finding, ...], *, width: int = WIDTH) -> str:
    """The report without colours, for logs and ``print``."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        for part in renderables(facts, findings):
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def renderables(facts: Facts, findings: tuple[Finding, ...]) -> Iterator[RenderableType]:
    """The parts of the report, top to bottom."""
    yield from _head(facts)
    yield from _findings(facts, findings)
    yield from _times(facts)
    yield from _workers(facts)
    yield from _failures(facts)


def _head(facts: Facts) -> Iterator[RenderableType]:
    progress = facts.progress
    title = Text.assemble(("Job ", "bold"), (visible(progress.job_id, 100), "bold cyan"), "  ", _state(facts))
    yield title
    origin = facts.origin
    where = f"  enqueued at {visible(origin.file, 300)}:{origin.line}" if origin.file else ""
    yield Text(f"{visible(progress.task, 300)}{where}", style="bright_black", overflow="fold")
    done = ProgressBar(total=max(1, progress.total), completed=progress.done, width=40)
    bar = Table.grid(padding=(0, 2))
    bar.add_row(done, Text(f"{progress.done:,} of {progress.total:,} items in {duration(facts.elapsed_s * 1e9)}"))
    yield bar
    outcomes = Text()
    for outcome in Outcome:
        count = progress.outcomes.get(outcome, 0)
        if count or outcome is Outcome.SUCCEEDED:
            outcomes.append(f"{count:,} {outcome.replace('_', ' ')} ({share(count, progress.done)})", COLOURS[outcome])
            outcomes.append("   ")
    outcomes.append(f"{progress.pending:,} pending" if progress.pending else "nothing pending", "bright_black")
    yield outcomes
    per_s = rate(progress.done / facts.elapsed_s) if facts.elapsed_s else "—"
    yield Text(
        f"{per_s}   {progress.retries:,} retries in {progress.attempts:,} executions   {progress.batches:,} batches"
    )


def _state(facts: Facts) -> Text:
    progress = facts.progress
    word = "paused" if progress.paused and not progress.ended else str(progress.state)
    return Text(word, style="green" if progress.ended else "yellow")


def _findings(facts: Facts, findings: tuple[Finding, ...]) -> Iterator[RenderableType]:
    yield Text("\nFindings", style="bold")
    if not findings:
        yield Text("  Nothing stands out." if facts.tried else "  Nothing to say yet: no item has ended.")
        return
    table = Table.grid(padding=(0, 1))
    table.add_column(width=2)
    table.add_column(overflow="fold")
    for finding in findings:
        mark, style = _MARKS[finding.severity]
        body = Text(overflow="fold")
        body.append(finding.title, style="bold")
        body.append(f"\n{finding.evidence}\n", style="bright_black")
        body.append(f"→ {finding.remedy}")
        table.add_row(Text(mark, style=style), body)
    yield Padding(table, (0, 0, 0, 1))


def _times(facts: Facts) -> Iterator[RenderableType]:
    yield Text("\nTime (exact, from the ledger)", style="bold")
    table = _table("", "share", "average", "min", "p50", "p95", "p99", "max")
    whole = sum(facts.times[name].sum_ns for name in facts.times if name != "ready")
    for name in TIME_CLASSES:
        times = facts.times.get(name, Distribution())
        if not times.sum_ns:
            continue
        quantiles = [duration(times.quantile_ns(q)) for q in (0.5, 0.95, 0.99)]
        part = "" if name == "ready" else share(times.sum_ns, whole)
        table.add_row(
            CLASS_NAMES[name], part, duration(times.mean_ns), duration(times.min_ns), *quantiles, duration(times.max_ns)
        )
    yield table if table.row_count else Text("  nothing measured yet")


def _workers(facts: Facts) -> Iterator[RenderableType]:
    sampled = facts.sampled
    yield Text("\nWorkers", style="bold")
    if not sampled.records:
        average = f"{facts.average_running:.3g} items at once on average (exact). "
        yield Text(f"  {average}No telemetry covers the job's time.")
        return
    efficiency = "—" if facts.efficiency is None else f"{percent(facts.efficiency)}"
    yield Text(
        f"  concurrency: configured {sampled.concurrency_configured:,.0f}, peak {sampled.concurrency_peak:,}, "
        f"average {facts.average_running:.3g} (exact), efficiency {efficiency}; sampled over {sampled.covered_s:,.0f} s"
    )
    table = _table("process", "memory", "peak", "limit", "running avg", "peak", "idle", "cpu")
    for process in sampled.processes[:16]:
        table.add_row(
            Text(f"{visible(process.host, 24)}:{process.pid}"),
            size(process.memory_bytes),
            size(process.memory_peak_bytes),
            size(process.memory_limit_bytes) if process.memory_limit_bytes else "—",
            f"{process.average_running:.3g} of {process.concurrency}",
            f"{process.peak_running}",
            f"{percent(process.idle_share)}",
            share(process.cpu_ns, process.interval_ns),
        )
    yield table
    if len(sampled.processes) > 16:
        yield Text(f"  and {len(sampled.processes) - 16} processes more")


def _failures(facts: Facts) -> Iterator[RenderableType]:
    if facts.errors:
        yield Text("\nErrors by type (exact)", style="bold")
        total = sum(facts.errors.values())
        table = _table("type", "count", "share")
        for kind, count in sorted(facts.errors.items(), key=lambda entry: (-entry[1], entry[0]))[:10]:
            table.add_row(Text(visible(kind, 60)), f"{count:,}", share(count, total))
        yield table
    if facts.groups:
        yield Text(
            "\nFailures" + (f" (of the first {facts.letters_read:,})" if facts.letters_cut else ""), style="bold"
        )
    for group in facts.groups[:5]:
        yield Padding(_group(group), (0, 0, 0, 2))
    if len(facts.groups) > 5:
        yield Text(f"  and {len(facts.groups) - 5} groups more: --html or --json shows them")


def _group(group: FailureGroup) -> Text:
    text = Text(overflow="fold")
    text.append(f"{group.error_type}, {group.count:,} times" if group.count > 1 else group.error_type, style="bold red")
    text.append(f"  {group.place}" + (f" in {group.function}" if group.function else ""))
    text.append(f"  [{group.fingerprint}]", style="bright_black")
    for sample in group.samples[:2]:
        text.append(f"\n  item {sample.index:,} after {sample.attempts} attempt{'' if sample.attempts == 1 else 's'}: ")
        text.append(visible(sample.message, 200))
        text.append(f"\n    {visible(sample.arguments, 120)}", style="bright_black")
    return text


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right", no_wrap=position > 0, overflow="fold")
    return table
