"""Async functions: tidegate against asyncio, uvloop, aiometer and Node, in one run, round robin.

    python bench/executor/async_bench.py [--rounds 5] [--scale 1.0] [--only WORD] [--cold] [--json FILE]

Every run is a process of its own, which does the work twice; rates are of the second time, when everybody's allocator and
compiler is warm, or with ``--cold`` of the first. Every peer has its turn in every round, with the first contender right
before it and right after it: a virtual machine may be half as fast again in one minute as in the next, and a ratio is to be
of the same minute. A ratio is the median over the rounds of (mean of the two runs beside the peer's) / (the peer's).
Printed: versions, parameters, every run, medians, ratios, and all rounds' ratios where there is a goal. ``--scale 0.1`` makes
all of it ten times shorter. Node and aiometer take part where they are installed; p-limit is fetched with npm into a cache
folder. Numbers are items a second (one item of doxbee is ten awaits, one of parallel is a fan of 25). Peers that make a task
for every item do a fifth of the items, so that all of it takes minutes: more items at once only make them slower.

    tidegate                    Executor.amap: limit, timeout, retry policy, statistics; @uvloop, @asyncio: on which loop
    tidegate.sleep              the same with tidegate.executor.sleep in the place of asyncio's
    tidegate.gather             the executor's gather without an executor: no limit, no timeout
    gather+semaphore+wait_for   asyncio.gather over coroutines that take a semaphore and wait_for with a timeout
    gather+semaphore, gather    the same without the timeout; without either
    aiometer                    aiometer.run_on_each with max_at_once: a limit, no timeout
    node optimiser              the JavaScript ancestor's algorithm with its leak mended: timers are cleared
    node optimiser timers left  the same with its timers left alive, as it was when it made 160,000 items a second
    node p-limit                p-limit: a limit, no timeout
    node promises               Promise.all over all of them, or a loop that awaits each (seq): no limit, no timeout
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
from typing import Any

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidegate-bench"


@dataclass(frozen=True)
class Row:
    """One work and who does it; the first contender is the one that is compared. ``goals``: contender -> least ratio."""

    title: str
    work: str
    n: int
    concurrency: int
    contenders: tuple[str, ...]
    goals: dict[str, float] = field(default_factory=dict)
    ideal_s: float = 0.0  # seconds an item would take alone; 0: no ideal
    node_n: int = 0

    def items_of(self, contender: str) -> int:
        if contender.startswith("node ") and self.node_n:
            return self.node_n
        return self.n // 5 if self.n >= 100_000 and contender.startswith(TASK_EACH) else self.n


TASK_EACH = ("gather", "aiometer")
Rates = tuple[float, float]  # items a second, the first and the second time
Beside = dict[str, list[tuple[Rates, Rates]]]  # contender -> of each round, the first one's runs before and after
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
            "node optimiser timers left",
            "node p-limit",
            "node promises",
        ),
        {
            HAND[1]: 100,
            "node optimiser": 20,
            "node optimiser timers left": 20,
            "node p-limit": 10,
            "node promises": 1.3,
        },
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
        (
            "tidegate.sleep@uvloop",
            "tidegate.sleep@asyncio",
            *OURS,
            *HAND,
            "gather+semaphore@uvloop",
            "aiometer@asyncio",
            "node p-limit",
        ),
        {"the ideal": 0.95},
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


def measure(row: Row, contender: str, n: int, p_limit: str | None) -> Rates:
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


def rounds_of(row: Row, rounds: int, scale: float, p_limit: str | None) -> tuple[dict[str, list[Rates]], Beside]:
    """Every run of the row. The first contender runs between any two of the others."""
    runs: dict[str, list[Rates]] = {name: [] for name in row.contenders if available(name, p_limit)}
    first, *peers = runs
    beside: Beside = {name: [] for name in peers}

    def once(name: str) -> Rates:
        runs[name].append(measure(row, name, max(1, int(row.items_of(name) * scale)), p_limit))
        return runs[name][-1]

    for _ in range(rounds):
        before = once(first)
        for name in peers:
            once(name)
            after = once(first)
            beside[name].append((before, after))
            before = after
    return runs, beside


def report(row: Row, runs: dict[str, list[Rates]], beside: Beside, cold: bool) -> dict[str, float]:
    """Prints the row; answers what there is a goal for: name -> how often faster (or the share of the ideal)."""
    chosen, other = (0, 1) if cold else (1, 0)
    medians = {contender: statistics.median(pair[chosen] for pair in pairs) for contender, pairs in runs.items()}
    others = {contender: statistics.median(pair[other] for pair in pairs) for contender, pairs in runs.items()}
    first = next(iter(medians))
    figures: dict[str, float] = {}
    print(f"\n{row.title}\n  {row.work}: {row.n:,} items, concurrency {row.concurrency:,}")
    for contender, pairs in runs.items():
        line = f"  {contender:36} {medians[contender]:>12,.0f}/s"
        if contender != first:
            ratios = [
                (before[chosen] + after[chosen]) / 2 / pair[chosen]
                for pair, (before, after) in zip(pairs, beside[contender], strict=True)
            ]
            ratio = statistics.median(ratios)
            line += f"   {ratio:8.2f} x"
            if contender in row.goals:
                figures[contender] = ratio
                line += f"  {verdict(ratio, row.goals[contender])}  rounds: " + " ".join(f"{one:.2f}" for one in ratios)
        if row.ideal_s:
            share = medians[contender] * row.ideal_s / row.concurrency
            line += f"   {share:.1%} of the ideal"
            if contender == first:
                figures["the ideal"] = share
                line += "  " + verdict(share, row.goals["the ideal"])
        line += f"   ({'warm' if cold else 'first time'}: {others[contender]:,.0f})"
        print(line, "  runs:", " ".join(f"{pair[chosen]:,.0f}" for pair in pairs), flush=True)
    return figures


def verdict(figure: float, goal: float) -> str:
    return f"(goal {goal:g}: {'reached' if figure >= goal else 'MISSED'})"


def run(rounds: int, scale: float = 1.0, only: str = "", cold: bool = False) -> dict[str, Any]:
    """Measures and prints every row whose work contains ``only``; answers everything as one document."""
    p_limit = find_p_limit()
    print(versions())
    print(f"{rounds} rounds, scale {scale:g}; a process for every run; round robin; medians; ratios to the runs beside")
    document: dict[str, Any] = {"versions": versions(), "rounds": rounds, "scale": scale, "rows": {}}
    for row in (row for row in ROWS if only in row.work):
        runs, beside = rounds_of(row, rounds, scale, p_limit)
        figures = report(row, runs, beside, cold)
        document["rows"][row.work] = {
            "title": row.title,
            "items": {contender: row.items_of(contender) for contender in runs},
            "concurrency": row.concurrency,
            "runs": runs,
            "beside": beside,
            "figures": figures,
            "goals": row.goals,
        }
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="", help="only works that contain this word")
    parser.add_argument("--cold", action="store_true", help="measure the first time a process does the work")
    parser.add_argument("--json", type=Path, help="write every run here")
    options = parser.parse_args()
    document = run(options.rounds, options.scale, options.only, options.cold)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
