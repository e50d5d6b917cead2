"""The storms by hand: ``python tests/chaos/run.py [--long] [--seed N] [--only NAME …] [--write docs/reliability.md]``.

Each row is printed, and written, as soon as it is there; rows of storms that were not run stay as they are. Exits with 1 when
a row does not hold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from storm.catalogue import STORMS
from storm.row import Scale
from storm.table import Run, line, said, write

SEED = 20261121


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="the full number of items and faults (most of an hour)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", nargs="*", choices=sorted(STORMS), help="these storms")
    parser.add_argument("--write", type=Path, help="put the rows into this page, one by one")
    options = parser.parse_args()
    failed = 0
    for name in options.only or STORMS:
        failed += not _run(name, options)
    return int(failed > 0)


def _run(name: str, options: argparse.Namespace) -> bool:
    """Run one storm, print and write its row; whether it holds."""
    with tempfile.TemporaryDirectory(prefix="tg-chaos-") as folder:
        began = time.monotonic()
        row = STORMS[name](Scale(long=options.long, seed=options.seed, folder=Path(folder)))
        run = Run(long=options.long, seed=options.seed, took_s=time.monotonic() - began)
    verdict = "holds" if not row.problems else "DOES NOT HOLD"
    print(f"{verdict}  {name}  {run.took_s:.0f} s  {row.load}  {said(row)}", flush=True)
    for problem in row.problems:
        print(f"    {problem}", flush=True)
    if options.write:
        write(options.write, line(row, run))
    return not row.problems


if __name__ == "__main__":
    sys.exit(main())
