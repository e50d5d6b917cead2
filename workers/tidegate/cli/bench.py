"""``tidegate bench``: how fast this machine is with items that do nothing. ``make bench`` compares with Celery."""

from __future__ import annotations

from typing import Annotated

import typer

from tidegate.cli.options import Json
from tidegate.cli.output import errors, print_json, say


def bench(
    *,
    items: Annotated[int, typer.Option(min=1, help="Items a run.")] = 200_000,
    batch_size: Annotated[int, typer.Option(min=1, max=100_000, help="Items a batch.")] = 1_000,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Runs; the median is shown.")] = 3,
    json: Json = False,
) -> None:
    """Measure no-op items end to end: a private server, one worker process, every result stored. Needs nothing running."""
    from tidegate.demo.measure import measure

    try:
        found = measure(items, batch_size, runs, lambda text: errors.print(text, markup=False))
    except KeyboardInterrupt:
        errors.print("interrupted: every process has ended, nothing is left behind")
        raise typer.Exit(130) from None
    if json:
        print_json(found)
        return
    medians, machine = found["medians"], found["machine"]
    say(f"{items:,} no-op items in batches of {batch_size:,}, one worker process, results stored, median of {runs}")
    say(f"  submitted        {medians['enqueue_rate']:>14,.0f} items/s")
    say(f"  done and stored  {medians['rate']:>14,.0f} items/s from submission to the last result")
    say(f"  worker's CPU     {medians['worker_cpu_us']:>14,.2f} µs/item")
    say(f"{machine['system']}, {machine['cores']} cores, Python {machine['python']}, load {machine['load']:.1f}")
