"""How a job is submitted, as plain Python: a producer that may be slow, die and run again, and a sweeper that ends its silence.

The other model (``protocol_model``) begins where this one ends: with everything submitted. A chunk is one batch here, and a
worker settles it in one step. ``submission_model.steps`` is explored as a whole, and replayed against the real scripts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

CHUNKS = 2


class Rules(NamedTuple):
    """What the protocol relies on; each can be switched off, to see that the model notices."""

    silence_ends_a_job: bool = True
    seal_counts_chunks: bool = True
    open_goes_on: bool = True
    append_refuses_cut: bool = True


RIGHT = Rules()


class Job(NamedTuple):
    """``state``: none, open, sealed or done. ``chunks``: written. ``settled``: of them."""

    state: str = "none"
    cut: bool = False
    chunks: int = 0
    settled: int = 0


class Request(NamedTuple):
    """``open``, ``append`` (of chunk ``number``) or ``seal`` (of ``number`` chunks)."""

    name: str
    number: int = 0


class State(NamedTuple):
    """``producer``: the request that it will send next; ``None``: dead. ``confirmed``: it was told that all is there."""

    job: Job = Job()
    producer: Request | None = Request("open")
    confirmed: bool = False
    wire: tuple[Request, ...] = ()  # copies that may arrive at any later time
    faults: int = 0
    before: Job | None = None  # the job one write ago, which a server that is killed may go back to
    forgot: bool = False


class Step(NamedTuple):
    name: str
    what: Request | None = None


def execute(job: Job, request: Request, rules: Rules = RIGHT) -> tuple[Job, str]:
    """One script; the job after it and the word of its reply."""
    if request.name == "open":
        if job.state == "none":
            return Job("open"), "ok"
        if job.cut and rules.open_goes_on:
            job = job._replace(state="open", cut=False)
        return job, "ok" if job.state == "open" else "sealed"
    if job.state == "none":
        return job, "gone"
    if request.name == "append":
        if request.number < job.chunks:
            return job, "ok"
        if job.cut and rules.append_refuses_cut:
            return job, "cut"
        if job.state != "open" and not job.cut:
            return job, "sealed"
        if request.number > job.chunks:
            return job, "gap"
        return job._replace(chunks=job.chunks + 1), "ok"
    if rules.seal_counts_chunks and request.number != job.chunks:
        return job, "gap"
    state = job.state if job.state == "done" else "sealed"
    return _ended(job._replace(state=state, cut=False)), "ok"


def cut_short(job: Job) -> Job:
    """sweep.lua, when the producer has been silent for too long."""
    return _ended(job._replace(state="sealed", cut=True)) if job.state == "open" else job


def settle(job: Job) -> Job:
    """A worker claims the next batch and commits all of it."""
    return _ended(job._replace(settled=job.settled + 1))


def _ended(job: Job) -> Job:
    return job._replace(state="done") if job.state == "sealed" and job.settled == job.chunks else job


def steps(state: State, rules: Rules = RIGHT) -> Iterator[tuple[Step, State]]:
    """Every step from here, and where it leads."""
    job, request = state.job, state.producer
    if request is not None:
        yield Step("executes", request), _answered(state, *execute(job, request, rules))
    elif not state.confirmed:
        yield Step("runs again"), state._replace(producer=Request("open"))
    if job.settled < job.chunks:
        yield Step("settles"), state._replace(job=settle(job))
    if job.state == "open" and request is None and rules.silence_ends_a_job:
        yield Step("cut short"), state._replace(job=cut_short(job))
    for copy in sorted(set(state.wire)):
        left = list(state.wire)
        left.remove(copy)
        yield Step("arrives late", copy), state._replace(job=execute(job, copy, rules)[0], wire=tuple(left))
    if state.faults:
        for step, after in _faults(state, rules):
            yield step, after._replace(faults=state.faults - 1)
        if state.before is not None:
            yield (
                Step("goes back in time"),
                state._replace(job=state.before, before=None, faults=state.faults - 1, forgot=True),
            )


def remembering(state: State, after: State) -> State:
    """``after``, with the job as it was one write before, as long as a fault is left that needs it."""
    if after.forgot or not after.faults:
        return after._replace(before=None)
    return after._replace(before=state.job) if after.job != state.job else after


def _faults(state: State, rules: Rules) -> Iterator[tuple[Step, State]]:
    job, request = state.job, state.producer
    if request is not None:
        executed = state._replace(job=execute(job, request, rules)[0])
        yield Step("executes, reply lost", request), executed
        yield Step("executes, then dies", request), executed._replace(producer=None)
        yield Step("dies"), state._replace(producer=None)
        yield Step("is sent twice", request), state._replace(wire=(*state.wire, request))
        if job.state == "open" and rules.silence_ends_a_job:
            yield Step("cut short"), state._replace(job=cut_short(job))  # it was only slow


def _answered(state: State, job: Job, word: str) -> State:
    request = state.producer
    assert request is not None
    if word == "sealed" and request.name == "open":
        return state._replace(job=job, producer=None, confirmed=True)
    if word in ("cut", "gone") or (word != "ok" and state.forgot):
        # What the server forgot is a gap: the producer's user gets an error, and runs it again.
        return state._replace(job=job, producer=Request("open"))
    if word != "ok":
        raise AssertionError(f"{request} is answered with {word}: {state}")
    if request.name == "seal":
        return state._replace(job=job, producer=None, confirmed=True)
    following = Request("append", job.chunks) if job.chunks < CHUNKS else Request("seal", CHUNKS)
    return state._replace(job=job, producer=following)


def problems(state: State) -> list[str]:
    """What is wrong with a state, a line each."""
    job, wrong = state.job, []
    if job.chunks > CHUNKS:
        wrong.append("a chunk was written twice")
    if job.state == "done" and job.settled != job.chunks:
        wrong.append("it ended before its items did")
    if job.state in ("sealed", "done") and not job.cut and job.chunks != CHUNKS:
        wrong.append("it says that it is whole, and is not")
    if state.confirmed and not state.forgot and (job.chunks != CHUNKS or job.cut):
        wrong.append("its producer was told that all is there")
    return wrong


def explore(faults: int, rules: Rules = RIGHT) -> tuple[int, list[str]]:
    """Every state that can be reached: how many there are, and what is wrong with them.

    From each, the job can end: with the producer dead for good, and without a further fault.
    """
    start = State(faults=faults)
    seen, todo, wrong = {start}, deque([start]), []
    while todo:
        state = todo.popleft()
        wrong += [f"{what}: {state}" for what in problems(state)]
        if state.job.state != "none" and not _ends_without_producer(state, rules):
            wrong.append(f"it never ends: {state}")
        try:
            following = list(steps(state, rules))
        except AssertionError as error:
            wrong.append(str(error))
            continue
        for step, taken in following:
            after = taken if step.name == "goes back in time" else remembering(state, taken)
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return len(seen), wrong


def _ends_without_producer(state: State, rules: Rules) -> bool:
    job = state.job
    for _ in range(2 * CHUNKS + 2):
        if job.state == "done":
            return True
        if job.state == "open" and rules.silence_ends_a_job:
            job = cut_short(job)
        elif job.settled < job.chunks:
            job = settle(job)
    return job.state == "done"
