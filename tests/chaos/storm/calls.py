"""Storms on the way to the ledger: replies lost, and a worker killed at every single call."""

from __future__ import annotations

import contextlib
import os
import signal

from storm.row import Row, Scale
from storm.scene import Scene, scene
from storm.tree import WorkerTree
from tidegate import Tidegate
from tidegate.testing.chaos.check import Verdict
from tidegate.testing.chaos.proxy import Call, Fault, FaultProxy, at_call, lose_replies

from storm.chaos_app import register  # isort: skip


def lost_replies(scale: Scale) -> Row:
    """Five of a hundred script calls are executed and their reply is lost: to producer and workers alike."""
    items = scale.items(200_000, 10_000)
    with scene(scale.folder / "lost-replies") as stage:
        with FaultProxy(stage.url, rule=lose_replies(0.05, scale.seed)) as proxy:
            with WorkerTree(proxy.url, stage.folder, stage.witness, processes=2):
                gate = register(Tidegate(proxy.url))
                job = gate.map("chaos.note", (1.0 for _ in range(items)), batch_size=50)
                progress = stage.gate.job(job.id).wait(timeout=900)
                gate.close()
            lost = proxy.faults[Fault.REPLY_LOST]
        verdict = stage.check(job, items)
        jobs = stage.gate.jobs()
    return Row(
        fault="reply lost after execution, 5 % of calls",
        load=f"{items:,} items, {proxy.calls:,} calls",
        verdict=verdict,
        proof={"replies lost": lost},
        shown={"re-executed": verdict.executed_again},
        bounds={
            "leaked leases": (progress.lost_leases + progress.running_batches, 0),
            "duplicated submissions": (len(jobs) - 1, 0),
        },
    )


def every_step(scale: Scale) -> Row:
    """One worker process, killed before, killed after, or left without a reply, at call 1, 2, 3, … of its life."""
    points = _calls_of_a_quiet_run(scale)
    actions = ("before", "after", "reply lost")
    runs = [(number, action) for number in range(1, points + 1) for action in actions]
    if not scale.long:  # early, in the middle, late
        runs = list(zip((2, points // 2, points - 1), actions, strict=True))
    invalid: list[str] = []
    struck = 0
    for number, action in runs:
        with scene(scale.folder / f"step-{number}-{action.replace(' ', '-')}") as stage:
            verdict, hit = _one_step(stage, number, action)
        struck += hit
        if not verdict.valid:
            invalid.append(f"{action} call {number}: {verdict}")
    return Row(
        fault="crash at every step of every transition",
        load=f"{len(runs)} runs of {points} calls: before, after, reply lost",
        verdict=None,
        proof={"crashes and losses": struck},
        shown={"invalid runs": "; ".join(invalid) or "none"},
        bounds={"invalid runs": (len(invalid), 0)},
    )


def _calls_of_a_quiet_run(scale: Scale) -> int:
    with scene(scale.folder / "step-0") as stage, FaultProxy(stage.url) as proxy:
        job = stage.submit("chaos.note", [2.0] * 40, batch_size=20)
        with WorkerTree(proxy.url, stage.folder, stage.witness, processes=1, settings={"sweep_s": 60}):
            stage.settle(job)
        return proxy.calls


def _one_step(stage: Scene, number: int, action: str) -> tuple[Verdict, int]:
    job = stage.submit("chaos.note", [2.0] * 40, batch_size=20)
    hits: list[int] = []
    settings = {"lease_s": 1.0, "sweep_s": 0.3}
    rule = at_call(number, Fault.REPLY_LOST) if action == "reply lost" else None
    with FaultProxy(stage.url, rule=rule) as proxy:
        tree = WorkerTree(proxy.url, stage.folder, stage.witness, processes=1, settings=settings)

        def strike(call: Call) -> None:
            if call.number == number and not hits:
                for child in tree.children():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child.pid, signal.SIGKILL)
                        hits.append(child.pid)

        if action == "before":
            proxy.before = strike
        elif action == "after":
            proxy.after = strike
        with tree:
            stage.settle(job)
        happened = len(hits) or proxy.faults[Fault.REPLY_LOST]
    return stage.check(job, 40), int(bool(happened))
