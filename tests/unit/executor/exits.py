"""Interpreter exit and fork in the middle of work, many times over: nothing may hang, crash or change the exit code.

    python tests/unit/executor/exits.py 500

Every try is a process of its own: a kind of work, a way to leave it, a moment. CI makes a few (test_exits.py).
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import random
import subprocess
import sys
from collections.abc import Iterator

#: A try that takes longer hangs: the slowest waits for items of some milliseconds.
PATIENCE_S = 60.0

PRELUDE = """
import asyncio, ctypes, os, sys, threading, time
from tidegate.executor import CFunction, Executor
from tidegate.model.retry import Retry

executor = Executor(8, timeout=5, retry=Retry(attempts=5, base=0.01, cap=0.05))

def nap(value):
    time.sleep(0.0005)
    return value

def fails(value):
    raise ValueError(value)

async def tick(value):
    await asyncio.sleep(0.001)
    return value

async def never(value):
    await asyncio.sleep(3600)

c_nap = CFunction.of(ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(lambda value: time.sleep(0.0005) or value))

def in_thread(function, *args, daemon=True):
    threading.Thread(target=function, args=args, daemon=daemon).start()
"""

#: What goes on when the process leaves.
WORK = {
    "sync": "in_thread(executor.map, nap, range(100_000))",
    "no-op": "in_thread(executor.map, abs, range(3_000_000))",
    "coroutines": "in_thread(executor.map, tick, range(100_000))",
    "suspended": "in_thread(executor.map, never, range(1_000))",
    "c": "in_thread(executor.map, c_nap, [0.5] * 100_000)",
    "stream": "stream = executor.stream(nap, iter(int, 1)); next(stream)",
    "stream-of-coroutines": "stream = executor.stream(tick, iter(int, 1), ordered=False); next(stream)",
    "stream-of-c": "stream = executor.stream(c_nap, iter(float, 1.0)); next(stream)",
    "retries": "in_thread(executor.map, fails, range(10_000))",
    "plain-thread": "in_thread(executor.map, nap, range(100_000), daemon=False)",
    "loop": "in_thread(lambda: asyncio.run(executor.amap(tick, range(100_000))))",
    "all": "[in_thread(executor.map, f, range(20_000)) for f in (nap, tick, never, fails)]",
}

#: How it leaves, and the exit code that says that it did.
WAYS = {
    "falls-off": ("", 0),
    "exit": ("raise SystemExit(5)", 5),
    "closes": ("executor.close()", 0),
    "forgets": ("del executor", 0),
    "fork": (
        """
child = os.fork()
if child == 0:
    sys.exit(7)  # the child leaves as the parent does: through the interpreter's own end
sys.exit(0 if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7 else 3)
""",
        0,
    ),
    "fork-and-work": (
        """
child = os.fork()
if child == 0:
    with Executor(2) as own:
        sys.exit(7 if own.map(abs, [-1, -2]).values == [1, 2] else 8)
sys.exit(0 if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7 else 3)
""",
        0,
    ),
}


@dataclasses.dataclass(frozen=True)
class Try:
    work: str
    way: str
    after_s: float

    def code(self) -> str:
        return f"{PRELUDE}\n{WORK[self.work]}\ntime.sleep({self.after_s!r})\n{WAYS[self.way][0]}\n"

    def run(self) -> str:
        """What went wrong, or nothing."""
        try:
            done = subprocess.run(
                [sys.executable, "-c", self.code()], capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{self}: hangs"
        expected = WAYS[self.way][1]
        # Daemon threads may be told that the executor was closed under them, and be cut off while they print it.
        ill = done.returncode != expected or "Fatal Python error" in done.stderr
        return f"{self}: exit {done.returncode}\n{done.stderr}" if ill else ""


def tries(count: int, seed: int = 1) -> Iterator[Try]:
    """Every kind of work with every way to leave in turn, each at another moment."""
    rng = random.Random(seed)
    pairs = list(itertools.product(WORK, WAYS))
    rng.shuffle(pairs)
    for work, way in itertools.islice(itertools.cycle(pairs), count):
        yield Try(work, way, round(rng.choice([0.0, rng.uniform(0, 0.003), rng.uniform(0, 0.05)]), 5))


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    wrong = [fault for one in tries(count, int(sys.argv[2]) if len(sys.argv) > 2 else 1) if (fault := one.run())]
    for fault in wrong[:10]:
        print(fault)
    hanging = sum("hangs" in fault for fault in wrong)
    kinds = collections.Counter(fault.split(":")[0].split("after_s")[0] for fault in wrong)
    print(f"{count} exits: {hanging} hang, {len(wrong) - hanging} leave otherwise than they should {dict(kinds) or ''}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
