"""``tidegate analyze``: run a workload through the C executor and say what its shape costs. Needs no Redis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any, get_args

import typer
from rich.table import Table

from tidegate.cli.options import Json
from tidegate.cli.output import console, print_json
from tidegate.errors import AppNotFound, ConfigurationError
from tidegate.executor.analysis import Analysis, Chain, PoolEffect, Shape, Simulation, analyse, chain_of, pool_effect
from tidegate.executor.executor import Executor
from tidegate.model.retry import Retry


class Test(StrEnum):
    """The three shapes of ``-t``."""

    CONCURRENCY = "concurrency"
    BATCH = "batch"
    CHAIN = "chain"


assert set(get_args(Shape)) == set(Test)


def analyze(
    target: Annotated[str, typer.Argument(help="MODULE:FUNCTION, called with 0 … n-1; none: work simulated in C")] = "",
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="items")] = 100,
    concurrency: Annotated[int, typer.Option("-c", "--concurrency", min=1, help="items at once")] = 10,
    batch: Annotated[int, typer.Option("-b", "--batch", min=1, help="items in a batch, for -t batch")] = 20,
    without_pool: Annotated[bool, typer.Option("-m", "--without-pool", help="allocate each item's record")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="print each item")] = False,
    test: Annotated[
        Test, typer.Option("-t", "--test", help="all at once, batch after batch, or item after item")
    ] = Test.CONCURRENCY,
    min_ms: Annotated[float, typer.Option("--min-ms", min=0, help="shortest simulated item")] = 100.0,
    max_ms: Annotated[float, typer.Option("--max-ms", min=0, help="longest simulated item")] = 1000.0,
    failure_rate: Annotated[
        float, typer.Option("--failure-rate", min=0, max=1, help="share of simulated failures")
    ] = 0.10,
    seed: Annotated[int, typer.Option("--seed", min=0, help="the same seed simulates the same work")] = 1,
    attempts: Annotated[int, typer.Option("--attempts", min=1, help="executions of an item that fails")] = 1,
    timeout: Annotated[float | None, typer.Option("--timeout", help="seconds for one attempt of your function")] = None,
    json: Json = False,
) -> None:
    """Run a workload through the executor and say what its shape costs: how long, how parallel, what the pool gains."""
    if max_ms < min_ms:
        raise ConfigurationError(f"--max-ms {max_ms:g} is below --min-ms {min_ms:g}", remedy="swap them")
    work: Simulation | Callable[..., Any] = (
        _function(target) if target else Simulation(min_ms, max_ms, failure_rate, seed)
    )
    name = target or f"simulated, {min_ms:g} to {max_ms:g} ms, {failure_rate:.0%} failures"
    retry = Retry(attempts=attempts)
    with Executor(concurrency, retry=retry, timeout=timeout, slabs=not without_pool, name="analyze") as executor:
        analysis = analyse(executor, work, shape=test.value, count=count, batch=batch, pool=not without_pool, name=name)
    chain = chain_of(analysis, concurrency) if test is Test.CHAIN else None
    effect = pool_effect()
    if json:
        print_json(_document(analysis, chain, effect, verbose))
    else:
        _show(analysis, chain, effect, verbose)


def _function(target: str) -> Callable[..., Any]:
    module_name, _, name = target.partition(":")
    try:
        found: Any = import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise AppNotFound(f"{target}: {error}", remedy="give MODULE:FUNCTION of something that imports") from error
    if not callable(found):
        raise AppNotFound(f"{target} is not a function", remedy="give MODULE:FUNCTION")
    return found  # type: ignore[no-any-return]


def _document(analysis: Analysis, chain: Chain | None, effect: PoolEffect, verbose: bool) -> dict[str, Any]:
    document = asdict(analysis)
    document["items_per_s"] = analysis.items_per_s
    if not verbose and chain is None:
        del document["links"]
    document["chain"] = asdict(chain) if chain is not None else None
    document["pool_effect"] = {**asdict(effect), "gain": effect.gain}
    return document


def _show(analysis: Analysis, chain: Chain | None, effect: PoolEffect, verbose: bool) -> None:
    if verbose or chain is not None:
        console.print(_links(analysis))
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(analysis):
        facts.add_row(f"[bold]{name}[/bold]", value)
    if chain is not None:
        for name, value in _chain(chain):
            facts.add_row(f"[bold]{name}[/bold]", value)
    facts.add_row(
        "[bold]pool[/bold]",
        f"{'on' if analysis.pool else 'off'} in this run; measured on {effect.items:,} no-op items: "
        f"{effect.with_pool_ns:.0f} ns an item with it, {effect.without_pool_ns:.0f} ns without ({effect.gain:+.1%} saved), "
        f"{effect.records_allocated_with:,} allocations against {effect.records_allocated_without:,}",
    )
    console.print(facts)
    for finding in analysis.findings:
        console.print(f"[yellow]{finding.severity}[/yellow]: {finding.message}\n  → {finding.advice}")


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    times = ", ".join(f"{name} {seconds * 1e3:,.1f} ms" for name, seconds in analysis.run_s.items())
    shape = f"{analysis.shape} of {analysis.batch}" if analysis.shape == "batch" else analysis.shape
    return [
        ("work", analysis.work),
        ("shape", f"{shape}, {analysis.concurrency} at once"),
        ("items", f"{analysis.items:,}: {analysis.succeeded:,} succeeded, {analysis.failed:,} failed"),
        ("took", f"{analysis.wall_s:.3f} s, {analysis.items_per_s:,.1f} items/s"),
        ("run time", times),
        ("at once", f"{analysis.average_concurrency:.2f} on average"),
        ("ideal", f"{analysis.ideal_s:.3f} s for these items: {analysis.efficiency:.1%} of it reached"),
    ]


def _chain(chain: Chain) -> list[tuple[str, str]]:
    return [
        ("critical path", f"{chain.critical_path_s:.3f} s, {chain.per_link_s * 1e3:,.1f} ms a link"),
        ("slowest link", f"number {chain.slowest_link}, {chain.slowest_s * 1e3:,.1f} ms"),
        ("between links", f"{chain.overhead_s * 1e3:,.2f} ms in all"),
        ("if independent", f"{chain.if_independent_s:.3f} s: what the links' need for each other costs"),
    ]


def _links(analysis: Analysis) -> Table:
    table = Table("item", "outcome", "run time", "error", box=None)
    for link in analysis.links:
        table.add_row(str(link.index), "succeeded" if link.ok else "failed", f"{link.run_s * 1e3:,.2f} ms", link.error)
    return table
