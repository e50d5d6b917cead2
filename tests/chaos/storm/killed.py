"""Storms that kill workers: single processes, whole trees, and items that end their own process."""

from __future__ import annotations

import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from random import Random

from storm.load import Load
from storm.row import Row, Scale
from storm.scene import scene, until
from storm.tree import WorkerTree
from tidegate.model.outcome import Outcome
from tidegate.testing.chaos import witness

BATCH = 100
AT_ONCE = 16  # the concurrency of chaos.note
_WAYS = ("segv", "abort", "exit", "hang", "killed")
SLOTS = 4


def kill_children(scale: Scale) -> Row:
    """``kill -9`` of worker processes at random moments; their supervisor hands back what they held."""
    items, kills = scale.items(1_000_000, 20_000), scale.faults(200, 6)
    random = Random(scale.seed)
    struck: list[tuple[int, int]] = []
    with scene(scale.folder / "kill-children") as stage, _tree(stage.url, stage.folder, stage.witness) as tree:
        with Load(stage, items, wait_ms=5.0, batch_size=BATCH) as load:
            while len(struck) < kills:
                time.sleep(random.uniform(0.3, 1.0))
                before = _lines(stage.witness)
                until(lambda before=before: _lines(stage.witness) > before, "work went on")
                if pid := tree.kill_child(random):
                    struck.append((time.monotonic_ns(), pid))
            verdict = load.settled(patience_s=1800)
        delays = _back_at_work_s(stage.witness, load.job.id, struck)
    return Row(
        fault="`kill -9` of worker processes",
        load=f"{load.items:,} items, {len(struck)} kills",
        verdict=verdict,
        proof={"processes killed": len(struck)},
        shown={
            "back at work p99, s": _quantile(delays, 0.99),
            "re-executed per kill": _share(verdict.executed_again, struck),
        },
        bounds={
            # What had ended is committed for the dead: only what was running runs again, at most as many as run at once.
            "re-executed": (verdict.executed_again, len(struck) * AT_ONCE),
            "kills that did not happen": (kills - len(struck), 0),
            "back at work p99, s": (_quantile(delays, 0.99), 1.0 if scale.long else 3.0),
        },
    )


def kill_trees(scale: Scale) -> Row:
    """``kill -9`` of a supervisor and all its processes: nobody hands anything back, the others take over at expiry."""
    items, kills = scale.items(200_000, 10_000), scale.faults(50, 2)
    lease_s, sweep_s = 2.0, 0.5
    random = Random(scale.seed)
    struck: list[tuple[int, int]] = []
    with scene(scale.folder / "kill-trees") as stage:
        settings = {"lease_s": lease_s, "slots": SLOTS, "sweep_s": sweep_s}
        trees = [
            WorkerTree(stage.url, stage.folder, stage.witness, processes=1, settings=settings).start() for _ in range(2)
        ]
        try:
            load = Load(stage, items, wait_ms=5.0, batch_size=BATCH)
            with load:
                for _ in range(kills):
                    victim = random.randrange(2)
                    began = stage.witness.stat().st_size
                    time.sleep(random.uniform(0.2, 0.8))
                    # Both work: there is something to lose, and somebody to take over.
                    until(
                        lambda began=began: all(tree.has_worked(stage.witness, began) for tree in trees),
                        "both trees work",
                    )
                    pids = trees[victim].kill_tree()
                    struck += [(time.monotonic_ns(), pid) for pid in pids]
                    trees[victim].start()
                verdict = load.settled(patience_s=1800)
            delays = _back_at_work_s(stage.witness, load.job.id, struck)
        finally:
            for tree in trees:
                tree.kill_tree()
    return Row(
        fault="`kill -9` of the whole worker tree",
        load=f"{load.items:,} items, {len(struck) // 2} kills",
        verdict=verdict,
        proof={"trees killed": len(struck) // 2, "leases lost": verdict.lost_leases},
        shown={"taken over p99, s": _quantile(delays, 0.99), "lease, s": lease_s},
        bounds={
            "re-executed": (verdict.executed_again, len(struck) // 2 * SLOTS * BATCH),
            "kills that did not happen": (kills - len(struck) // 2, 0),
            "taken over p99, s": (_quantile(delays, 0.99), lease_s + (2 * sweep_s if scale.long else 3.0)),
        },
    )


def poison(scale: Scale) -> Row:
    """Items that end their process: each is named by the crash journal, charged alone, and given up after three crashes."""
    items, poisoned = scale.items(100_000, 2_000), scale.faults(100, 5)
    random = Random(scale.seed)
    where = sorted(random.sample(range(items), poisoned))
    how = dict(zip(where, islice(cycle(_WAYS), poisoned), strict=True))
    with scene(scale.folder / "poison") as stage, _tree(stage.url, stage.folder, stage.witness) as tree:
        job = stage.submit("chaos.poison", (how.get(index, "harmless") for index in range(items)), batch_size=BATCH)
        progress = stage.settle(job, patience_s=1800)
        verdict = stage.check(job, items)
        seen = witness.read(stage.witness, job.id).by_index
        ended = witness.read(f"{stage.witness}.ended", job.id).by_index
        dead = {failure.index: failure for failure in job.failures()}
        assert tree.exit_code is None
    # Three deaths are charged, and three were begun: more when another's crash interrupted one, or when nobody could know
    # who it was the first time (a kill from outside), which is charged to nobody.
    charged = Counter(min(3, seen[index]) for index in where if index in dead and "died 3 times" in dead[index].message)
    interrupted = sum(count - ended[index] for index, count in seen.items() if index not in how)
    return Row(
        fault="poison items (SIGSEGV, abort, _exit, hang in C, SIGKILL)",
        load=f"{poisoned} among {items:,}",
        verdict=verdict,
        proof={"items that crashed their process three times": charged[3]},
        shown={"innocents interrupted": interrupted},
        bounds={
            "poison items not dead-lettered": (sum(index not in dead for index in where), 0),
            "poison items not crashed three times": (poisoned - charged[3], 0),
            # By what an item writes last. CI allows for one that is struck between that and its return.
            "innocents re-run": (
                sum(ended[index] - 1 for index in range(items) if index not in how),
                0 if scale.long else 1,
            ),
            "innocents blamed": (sum(index not in how for index in dead), 0),
            "other outcomes": (progress.outcomes.get(Outcome.FAILED, 0), 0),
        },
    )


def _tree(url: str, folder: Path, seen: Path) -> WorkerTree:
    return WorkerTree(url, folder, seen, processes=2, settings={"slots": SLOTS})


def _lines(path: Path) -> int:
    return path.stat().st_size


def _back_at_work_s(path: Path, job_id: str, struck: list[tuple[int, int]]) -> list[float]:
    """Per kill that interrupted something: seconds until an item that the dead process had begun ran again."""
    first_pid: dict[int, int] = {}
    again: dict[int, list[int]] = {}
    with path.open("rb") as file:
        for line in file:
            name, index, _attempt, pid, mono_ns = line.split()
            if name != job_id.encode():
                continue
            if int(index) in first_pid:
                again.setdefault(first_pid[int(index)], []).append(int(mono_ns))
            else:
                first_pid[int(index)] = int(pid)
    delays = []
    for killed_ns, pid in struck:
        later = [mono_ns for mono_ns in again.get(pid, ()) if mono_ns > killed_ns]
        if later:
            delays.append((min(later) - killed_ns) / 1e9)
    return delays


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else 0.0


def _share(count: int, struck: list[tuple[int, int]]) -> float:
    return round(count / len(struck), 1) if struck else 0.0
