"""Everything about the executor alone, in one run, with the goals it has at the end.

    python bench/executor/run_all.py [--rounds 5] [--scale 1.0] [--json FILE]

First sync_bench.py, then async_bench.py: each says at its head what its rows are. About ten minutes for five rounds on two
cores with nothing else to do. ``--scale 0.1`` makes it ten times shorter, and says less.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import async_bench
import sync_bench


def summary(sync: dict[str, Any], several: dict[str, Any]) -> list[str]:
    lines = [
        f"{name}: {value:.2f} {sync_bench.verdict(name, value)}" for name, value in sync_bench.figures(sync).items()
    ]
    for row in several["rows"].values():
        for name, value in row["figures"].items():
            lines.append(
                f"{row['title']}, against {name}: {value:.2f} {async_bench.verdict(value, row['goals'][name])}"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", type=Path, default=Path("build/bench-executor.json"), help="write every run here")
    options = parser.parse_args()
    sync = sync_bench.run(max(1000, int(200_000 * options.scale)), options.rounds)
    sync_bench.show(sync)
    print()
    several = async_bench.run(options.rounds, options.scale)
    print("\nFigures that have a goal:")
    lines = summary(sync, several)
    print("\n".join(lines))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"sync": sync, "async": several, "summary": lines}, indent=1))
    print(f"Every run is in {options.json}.")


if __name__ == "__main__":
    main()
