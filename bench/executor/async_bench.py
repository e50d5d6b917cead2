"""Async functions: tidegate against asyncio, uvloop, aiometer and Node, in one run, round robin.

    python bench/executor/async_bench.py [--rounds 5] [--scale 1.0] [--only WORD] [--cold] [--json FILE]

Every run is a process of its own, which does the work twice; ratios are of the second time, when everybody's allocator and
compiler is warm, or with ``--cold`` of the first. Medians of both are printed. Every peer has its turn in every round, so
that a slow minute of the machine meets all of them. Printed: versions, parameters, every run, medians, and the ratio of the
first contender to each. ``--scale 0.1`` makes all of it ten times shorter. Node and aiometer take part where they are
installed; p-limit is fetched with npm into a cache folder. Numbers are items a second (one item of doxbee is ten awaits, one
of parallel is a fan of 25).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidegate-bench"


@dataclass(frozen=True)
class Row:
    """One work and who does it; the first contender is the one that is compared. ``goal``: contender -> least ratio."""

    title: str
    work: str
    n: int
    concurrency: int
    contenders: tuple[str, ...]
    goals: dict[str, float] = field(default_factory=dict)
    ideal_s: float = 0.0  # seconds an item would take alone; 0: no ideal
    node_n: int = 0


HAND = ("gather+semaphore+wait_for@asyncio", "gather+semaphore+wait_for@uvloop")
OURS = ("tidegate@uvloop", "tidegate@asyncio")
ROWS = (
    Row(
        "coroutines that never suspend, limit 100, timeout, retry policy and statistics on",
        "ready",
        200_000,
        100,
        (
            *OURS,
            *HAND,
            "gather+semaphore@uvloop",
            "gather@uvloop",
            "aiometer@asyncio",
            "node optimiser",
            "node p-limit",
            "node promises",
        ),
        {HAND[1]: 100, "node optimiser": 20, "node p-limit": 10, "node promises": 1.3},
    ),
    Row(
        "coroutines that suspend once (a bare yield), limit 100, timeout on",
        "turn",
        200_000,
        100,
        (*OURS, *HAND, "node optimiser", "node p-limit", "node promises"),
        {HAND[1]: 8},
    ),
    Row(
        "coroutines that suspend once (a future), limit 100, timeout on",
        "tick",
        100_000,
        100,
        (*OURS, *HAND, "node optimiser", "node p-limit", "node promises"),
        {HAND[1]: 1},
    ),
    Row(
        "sleeps of 10 ms, concurrency 1,000",
        "sleep",
        20_000,
        1000,
        (*OURS, *HAND, "gather+semaphore@uvloop", "node p-limit"),
        ideal_s=0.01,
    ),
    Row(
        "doxbee, ready, one at a time",
        "doxbee-ready-seq",
        100_000,
        1,
        ("tidegate.gather@uvloop", "tidegate@uvloop", HAND[0], HAND[1], "node promises"),
        {"node promises": 1, HAND[1]: 1},
    ),
    Row(
        "doxbee, ready, all at once",
        "doxbee-ready-conc",
        100_000,
        1,
        ("tidegate.gather@uvloop", "tidegate@uvloop", HAND[0], HAND[1], "node promises"),
        {"node promises": 1, HAND[1]: 1},
    ),
    Row(
        "doxbee, bare yields, one at a time",
        "doxbee-turn-seq",
        4_000,
        1,
        ("tidegate.gather@uvloop", "tidegate@uvloop", HAND[0], HAND[1], "node promises"),
        {HAND[1]: 1},
        node_n=20_000,
    ),
    Row(
        "doxbee, futures, one at a time",
        "doxbee-tick-seq",
        4_000,
        1,
        ("tidegate.gather@uvloop", "tidegate@uvloop", HAND[0], HAND[1], "node promises"),
        {HAND[1]: 1},
        node_n=20_000,
    ),
    Row(
        "doxbee, bare yields, all at once",
        "doxbee-turn-conc",
        20_000,
        1,
        ("tidegate.gather@uvloop", "tidegate@uvloop", HAND[0], HAND[1], "node promises"),
        {HAND[1]: 1},
    ),
    Row(
        "doxbee, futures, all at once",
        "doxbee-tick-conc",
        20_000,
        1,
        ("tidegate.gather@uvloop", "tidegate@uvloop", HAND[0], HAND[1], "node promises"),
        {HAND[1]: 1},
    ),
    Row(
        "parallel, ready",
        "parallel-ready-seq",
        20_000,
        1,
        ("tidegate.gather@uvloop", "tidegate@uvloop", HAND[0], HAND[1], "node promises"),
        {"node promises": 1, HAND[1]: 1},
    ),
    Row(
        "parallel, bare yields",
        "parallel-turn-seq",
        4_000,
        1,
        ("tidegate.gather@uvloop", "tidegate@uvloop", HAND[0], HAND[1], "node promises"),
        {HAND[1]: 1},
        node_n=20_000,
    ),
    Row(
        "parallel, futures",
        "parallel-tick-seq",
        4_000,
        1,
        ("tidegate.gather@uvloop", "tidegate@uvloop", HAND[0], HAND[1], "node promises"),
        {HAND[1]: 1},
        node_n=20_000,
    ),
)


def find_p_limit() -> str | None:
    """The file of the p-limit module, installed into the cache folder at the first run."""
    module = CACHE / "node_modules" / "p-limit" / "index.js"
    if not module.exists() and shutil.which("npm"):
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(CACHE), "p-limit@7"]
        subprocess.run(command, check=False, capture_output=True, timeout=120)
    return str(module) if module.exists() else None


def available(contender: str, p_limit: str | None) -> bool:
    if contender.startswith("node "):
        return shutil.which("node") is not None and (contender != "node p-limit" or p_limit is not None)
    library = contender.partition("@")[0]
    if library == "aiometer" and importlib.util.find_spec("aiometer") is None:
        return False
    return not contender.endswith("@uvloop") or importlib.util.find_spec("uvloop") is not None


def measure(row: Row, contender: str, n: int, p_limit: str | None) -> tuple[float, float]:
    """Items a second of one process: the first and the second time."""
    environment = {**os.environ, "P_LIMIT": p_limit or ""}
    if contender.startswith("node "):
        command = ["node", str(HERE / "async_node.mjs"), contender.removeprefix("node ")]
    else:
        command = [sys.executable, str(HERE / "async_python.py"), contender]
    command += [row.work, str(n), str(row.concurrency)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{ran.stderr}")
    answer = json.loads(ran.stdout.splitlines()[-1])
    first, second = answer["seconds"]
    return answer["items"] / first, answer["items"] / second


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    if shutil.which("node"):
        found.append("node " + subprocess.check_output(["node", "--version"], text=True).strip())
    for library in ("uvloop", "aiometer", "tidegate"):
        try:
            found.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{library} not installed")
    package = CACHE / "node_modules" / "p-limit" / "package.json"
    if package.exists():
        found.append(f"p-limit {json.loads(package.read_text())['version']}")
    return ", ".join(found) + f"; {os.cpu_count()} CPUs, {platform.platform()}"


def report(row: Row, n: int, runs: dict[str, list[tuple[float, float]]], cold: bool) -> dict[str, float]:
    medians = {
        contender: statistics.median(pair[0 if cold else 1] for pair in pairs) for contender, pairs in runs.items()
    }
    others = {
        contender: statistics.median(pair[1 if cold else 0] for pair in pairs) for contender, pairs in runs.items()
    }
    first = next(iter(medians))
    print(f"\n{row.title}\n  {row.work}: {n:,} items, concurrency {row.concurrency:,}")
    for contender, pairs in runs.items():
        ratio = medians[first] / medians[contender]
        line = f"  {contender:36} {medians[contender]:>12,.0f}/s"
        if contender != first:
            line += f"   {ratio:8.2f} x"
            if contender in row.goals:
                line += (
                    f"  (goal {row.goals[contender]:g} x: {'reached' if ratio >= row.goals[contender] else 'MISSED'})"
                )
        if row.ideal_s:
            line += f"   {medians[contender] * row.ideal_s / row.concurrency:.1%} of the ideal"
        line += f"   ({'warm' if cold else 'first time'}: {others[contender]:,.0f})"
        print(line, "  runs:", " ".join(f"{pair[0 if cold else 1]:,.0f}" for pair in pairs))
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="", help="only works that contain this word")
    parser.add_argument("--cold", action="store_true", help="measure the first time a process does the work")
    parser.add_argument("--json", type=Path, help="write every run here")
    options = parser.parse_args()
    p_limit = find_p_limit()
    print(versions())
    print(f"{options.rounds} rounds, scale {options.scale:g}; a process for every run; round robin; medians")
    everything = {}
    for row in (row for row in ROWS if options.only in row.work):
        runs: dict[str, list[tuple[float, float]]] = {c: [] for c in row.contenders if available(c, p_limit)}
        for _ in range(options.rounds):
            for contender, rates in runs.items():
                n = row.node_n if contender.startswith("node ") and row.node_n else row.n
                rates.append(measure(row, contender, max(1, int(n * options.scale)), p_limit))
        everything[row.work] = {"medians": report(row, int(row.n * options.scale), runs, options.cold), "runs": runs}
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
