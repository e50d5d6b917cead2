"""What must hold in every state of the model, and the two ways to look for where it does not: everywhere, and far away."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random

from protocol_model import RIGHT, SLOTS, Rules, State, Step, means, start, steps


def problems(state: State, faults: int) -> list[str]:
    """What is wrong with a state, a line each."""
    server, wrong = state.server, []
    places = sorted([*server.ready, *(lease.batch for lease in server.leases)])
    pending = [b for b, full in enumerate(server.full) if server.settled[b] | server.cancelled[b] != full]
    if places != pending:
        wrong.append(f"batches {pending} are pending, {places} are somewhere")
    if any(s & c for s, c in zip(server.settled, server.cancelled, strict=True)):
        wrong.append("an item has two outcomes")
    if server.twice:
        wrong.append("an item was settled twice")
    if len({lease.epoch for lease in server.leases}) != len(server.leases):
        wrong.append("two leases have one epoch")
    if state.gentle and not all(any(means(worker, lease) for worker in state.workers) for lease in server.leases):
        wrong.append("a lease was granted to nobody")
    if server.ended and server.window:
        wrong.append("an ended job has tickets")
    if len(server.window) > SLOTS:
        wrong.append("the window is too wide")
    most = max(max(counts) for counts in state.ran)
    if most > 1 + faults - state.faults:
        wrong.append(f"an item ran {most} times after {faults - state.faults} faults")
    if (
        not server.cancel
        and not state.wire
        and any(s & ~_union(r) for s, r in zip(server.settled, state.ran, strict=True))
    ):
        wrong.append("an item has an outcome and never ran")
    return wrong


def _union(counts: tuple[int, ...]) -> int:
    return sum(1 << at for at, count in enumerate(counts) if count)


def bad_step(before: State, step: Step, after: State) -> list[str]:
    """What is wrong with a step: only a good token changes an outcome, and outcomes do not change back."""
    old, new = before.server, after.server
    if step.name == "goes back in time" or old is new:
        return []
    wrong = []
    if any(o & ~n for o, n in zip(old.settled, new.settled, strict=True)):
        wrong.append("an outcome was taken back")
    if step.name in ("executes", "executes, reply lost", "arrives late") and old.settled != new.settled:
        request = step.what
        if request.lease not in old.leases:
            wrong.append("a stale token changed an outcome")
    for lease in old.leases:
        gone = lease not in new.leases
        if gone and step.name == "is cancelled":
            wrong.append("a lease was taken by a cancellation")
    return wrong


@dataclass
class Explored:
    """All states that can be reached, how, and the first thing that is wrong."""

    origin: dict[State, tuple[State, Step] | None]
    edges: int
    problem: str
    at: State | None

    def path(self, state: State) -> list[Step]:
        """The steps from the start to a state."""
        found: list[Step] = []
        while (via := self.origin[state]) is not None:
            state, step = via
            found.append(step)
        return found[::-1]


def explore(faults: int, rules: Rules = RIGHT, sizes: tuple[int, ...] = (2, 1, 1), limit: int = 10_000_000) -> Explored:
    """Breadth first over every order of steps. Stops at the first problem; also looks for states that cannot end."""
    first = start(faults, sizes)
    origin: dict[State, tuple[State, Step] | None] = {first: None}
    sources: dict[State, list[State]] = {}
    waiting, edges = deque([first]), 0
    while waiting:
        state = waiting.popleft()
        for step, after in steps(state, rules):
            edges += 1
            new = after not in origin
            if new:
                origin[after] = (state, step)
                if len(origin) > limit:
                    return Explored(origin, edges, "too many states", after)
                waiting.append(after)
            wrong = bad_step(state, step, after) or (problems(after, faults) if new else [])
            if wrong:
                return Explored(origin, edges, f"{step.name}: {'; '.join(wrong)}", after)
            if after.faults == state.faults:  # no fault may be needed to get on
                sources.setdefault(after, []).append(state)
    stuck = _cannot_end(origin, sources)
    return Explored(origin, edges, "cannot end" if stuck else "", stuck)


def wander(
    random: Random, faults: int, sizes: tuple[int, ...] = (2, 1, 1), most: int = 200
) -> list[tuple[State, Step, State]]:
    """One order of steps, picked at random, until the job has ended and nobody has anything left to do."""
    state, found = start(faults, sizes), []
    while len(found) < most and (options := list(steps(state))):
        usual = [option for option in options if option[1].faults == state.faults]
        step, after = random.choice(usual if usual and random.random() < 0.8 else options)
        found.append((state, step, after))
        state = after
    return found


def _cannot_end(origin: dict[State, tuple[State, Step] | None], sources: dict[State, list[State]]) -> State | None:
    able = {state for state in origin if state.server.ended}
    waiting = deque(able)
    while waiting:
        for source in sources.get(waiting.popleft(), ()):
            if source not in able:
                able.add(source)
                waiting.append(source)
    return next((state for state in origin if state not in able), None)
