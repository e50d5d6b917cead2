"""Storms that stop workers: paused past their lease, and restarted one after the other as a deploy does."""

from __future__ import annotations

import signal
import time
from random import Random

import psutil

from storm.load import Load
from storm.row import Row, Scale
from storm.scene import scene, until
from storm.tree import WorkerTree
from tidegate import Job

BATCH = 50
#: Leases of a second that have not run out by then were not held. Well before a supervisor ends what it takes for stuck.
_HELD_NOTHING_S = 15.0


def zombies(scale: Scale) -> Row:
    """``SIGSTOP`` past the lease, then ``SIGCONT``: what wakes up must find that it may not write any more."""
    paused = scale.faults(40, 2)
    lease_s, stop_s = 1.0, 2.2
    random = Random(scale.seed)
    with scene(scale.folder / "zombies") as stage:
        settings = {"lease_s": lease_s, "slots": 2, "sweep_s": 0.3}
        with WorkerTree(stage.url, stage.folder, stage.witness, processes=2, settings=settings) as tree:
            tree.wait_up()
            load = Load(stage, scale.items(100_000, 5_000), wait_ms=8.0, batch_size=BATCH)
            with load:
                job, stopped = load.job, 0
                while stopped < paused:
                    tree.wait_up()
                    time.sleep(0.3)
                    began = stage.witness.stat().st_size
                    until(lambda began=began: tree.has_worked(stage.witness, began), "a worker works")
                    victim = random.choice(tree.children())
                    stopped += _zombie(tree, victim, job, stop_s - lease_s)
                verdict = load.settled(patience_s=1800)
    return Row(
        fault="`SIGSTOP` past the lease, then `SIGCONT`",
        load=f"{load.items:,} items, {stopped} zombies",
        verdict=verdict,
        proof={"zombies": stopped, "leases lost": verdict.lost_leases, "stale writes refused": verdict.stale_refused},
        shown={"stale commits accepted": verdict.committed_twice, "refused": verdict.stale_refused},
        bounds={
            "zombies that were not refused": (stopped - verdict.stale_refused, 0),
            "zombies that were not made": (paused - stopped, 0),
        },
    )


def _zombie(tree: WorkerTree, victim: psutil.Process, job: Job[object], after_s: float) -> bool:
    """Stop a process past its leases and wake it; whether it held any, and was refused when it woke."""
    before = job.progress()
    tree.signal_child(victim, signal.SIGSTOP)
    try:
        until(lambda: job.progress().lost_leases > before.lost_leases, "leases ran out", _HELD_NOTHING_S)
        time.sleep(after_s)
    except TimeoutError:
        return False  # it was stopped between two batches: another one, then
    finally:
        tree.signal_child(victim, signal.SIGCONT)
    until(lambda: job.progress().stale_refused > before.stale_refused, "what woke up was refused")
    return True


def rolling_restarts(scale: Scale) -> Row:
    """SIGTERM to one worker after the other while the load goes on: nothing runs twice, every exit code is 0."""
    items, restarts = scale.items(200_000, 10_000), scale.faults(20, 3)
    codes: list[int] = []
    with scene(scale.folder / "rolling") as stage:
        trees = [WorkerTree(stage.url, stage.folder, stage.witness, processes=1).start() for _ in range(2)]
        try:
            load = Load(stage, items, wait_ms=5.0, batch_size=BATCH)
            with load:
                for number in range(restarts):
                    tree = trees[number % 2]
                    other = trees[1 - number % 2]
                    tree.wait_up()
                    other.wait_up()
                    began = stage.witness.stat().st_size
                    time.sleep(0.5)
                    until(lambda tree=tree, began=began: tree.has_worked(stage.witness, began), "the worker works")
                    codes.append(tree.terminate())
                    tree.start()
                verdict = load.settled(patience_s=1800)
        finally:
            for tree in trees:
                tree.kill_tree()
    return Row(
        fault="rolling restarts",
        load=f"{load.items:,} items, {len(codes)} restarts under load",
        verdict=verdict,
        proof={"restarts": len(codes)},
        shown={"exit codes": ", ".join(str(code) for code in sorted(set(codes)))},
        bounds={
            "re-executed": (verdict.executed_again, 0),
            "restarts that did not happen": (restarts - len(codes), 0),
            "exit codes that are not 0": (sum(code != 0 for code in codes), 0),
        },
    )
