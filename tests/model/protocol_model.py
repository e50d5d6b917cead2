"""The protocol of docs/protocol.md as plain Python: what the server does, what workers do, and what may go wrong.

A state is a tuple and a step is a pure function, so that every order of steps can be tried (``protocol_explore``) and each
order can be replayed against the real scripts (``protocol_replay``). Time does not exist here: a lease may expire and a ticket
may be given up at any moment. What fair scheduling would not do by itself costs a *fault*, and faults are rationed.

Small on purpose: one sealed job of two or three batches of one or two items, two workers, a window of two tickets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

WORKERS = 2
SLOTS = 2
NONCES = 4  # a worker's requests are numbered modulo this; nobody holds on to a request for longer


class Rules(NamedTuple):
    """What the protocol relies on. Each can be switched off, to see that the model notices."""

    token_has_nonce: bool = True
    commit_checks_token: bool = True
    commit_checks_bits: bool = True
    claims_are_remembered: bool = True
    commits_are_remembered: bool = True
    sweep_keeps_bits: bool = True
    sweep_drops_lease: bool = True
    sweep_replaces_tickets: bool = True
    expiry_returns_batch: bool = True
    cancel_spares_leases: bool = True


RIGHT = Rules()

#: Faults that must not cost anybody a lease.
GENTLE = ("executes, reply lost", "drains", "ticket repeated", "ticket lost", "gives up ticket", "is cancelled")


class Lease(NamedTuple):
    batch: int
    epoch: int
    nonce: int


class Server(NamedTuple):
    """What the ledger holds. ``full``, ``settled``, ``cancelled``: a mask of items per batch. ``memos``: (nonce, reply) by
    worker."""

    full: tuple[int, ...]
    ready: tuple[int, ...]
    leases: tuple[Lease, ...]
    settled: tuple[int, ...]
    cancelled: tuple[int, ...]
    epoch: int
    window: tuple[int, ...]
    last_ticket: int
    memos: tuple[tuple[int, object] | None, ...]
    cancel: bool
    twice: bool  # an item was settled twice: the mask cannot show it

    @property
    def ended(self) -> bool:
        return all(s | c == full for s, c, full in zip(self.settled, self.cancelled, self.full, strict=True))


class Request(NamedTuple):
    """A claim (``lease`` is None) or a commit, on its way."""

    worker: int
    nonce: int
    ticket: int
    lease: Lease | None = None
    bits: int = 0
    hand_back: bool = False
    last: bool = False  # all that this holder knows of: it lets go of the lease and claims the next batch


class Worker(NamedTuple):
    """``lease``, ``known``: the lease it believes in, and its bits then. ``ran``: executed, not committed yet."""

    ticket: int = 0
    lease: Lease | None = None
    known: int = 0
    ran: int = 0
    request: Request | None = None
    count: int = 0


class State(NamedTuple):
    server: Server
    before: Server | None  # the server one write ago; None when it cannot go back any more
    workers: tuple[Worker, ...]
    queue: tuple[int, ...]
    wire: tuple[Request, ...]  # copies of requests that may arrive at any later time, or never
    faults: int
    ran: tuple[tuple[int, ...], ...]  # executions per item
    gentle: bool = True  # nothing went wrong but lost replies, tickets, and an operator's wishes


class Step(NamedTuple):
    """A step by name, with what it is done to."""

    name: str
    what: object = None


Reply = tuple[str, object, tuple[int, ...]]  # kind, lease with its bits, tickets to send


def start(faults: int, sizes: tuple[int, ...] = (2, 1, 1)) -> State:
    """Everything submitted; the producer's tickets are in the queue."""
    none = (0,) * len(sizes)
    full = tuple((1 << size) - 1 for size in sizes)
    tickets = tuple(range(1, min(SLOTS, len(sizes)) + 1))
    server = Server(
        full, tuple(range(len(sizes))), (), none, none, 0, tickets, len(tickets), (None,) * WORKERS, False, False
    )
    ran = tuple((0,) * size for size in sizes)
    return State(server, server if faults else None, (Worker(),) * WORKERS, tickets, (), faults, ran)


# -- the server's scripts ----------------------------------------------------------------------------------------------


def claim(server: Server, request: Request, rules: Rules = RIGHT) -> tuple[Server, Reply]:
    """claim.lua"""
    seen = server.memos[request.worker]
    if rules.claims_are_remembered and seen and seen[0] == request.nonce:
        return server, _again(server, request, seen[1])
    if server.ended:
        return server, ("gone", None, ())
    server, kind, lease = _grant(server, request)
    if kind != "retired":
        server = _remember(server, request, (kind if lease is None else "ok", lease, ()))
    return server, (kind, lease and (lease, server.settled[lease.batch]), ())


def commit(server: Server, request: Request, rules: Rules = RIGHT) -> tuple[Server, Reply]:
    """commit.lua"""
    lease = request.lease
    assert lease is not None
    seen = server.memos[request.worker]
    if rules.commits_are_remembered and seen and seen[0] == request.nonce:
        return server, _again(server, request, seen[1])
    if rules.commit_checks_token and not _holds(server, lease, rules):
        return server, ("stale", None, ())
    if server.settled[lease.batch] & request.bits:
        if rules.commit_checks_bits:
            return server, ("stale", None, ())
        server = server._replace(twice=True)
    settled = _with(server.settled, lease.batch, server.settled[lease.batch] | request.bits)
    server = server._replace(settled=settled)
    done = settled[lease.batch] == server.full[lease.batch]
    if done or request.hand_back:
        server = server._replace(leases=tuple(one for one in server.leases if one.batch != lease.batch))
    if request.hand_back and not done:
        server = _give_back(server, lease.batch)
    kind, next_lease, tickets = "", None, ()
    if request.last:
        server, kind, next_lease = _grant(server, request)
    if request.hand_back and not done:
        server, tickets = _issue(server)
    server = _remember(server, request, (kind, next_lease, tickets))
    if server.ended:
        server = server._replace(window=())
    return server, (kind, next_lease and (next_lease, server.settled[next_lease.batch]), tickets)


def expire(server: Server, lease: Lease, rules: Rules = RIGHT) -> tuple[Server, tuple[int, ...]]:
    """sweep.lua, when the deadline of this lease has passed."""
    if rules.sweep_drops_lease:
        server = server._replace(leases=tuple(one for one in server.leases if one != lease))
    if not rules.sweep_keeps_bits:
        server = server._replace(settled=_with(server.settled, lease.batch, 0))
    if rules.expiry_returns_batch:
        server = _give_back(server, lease.batch)
    if server.ended:
        return server._replace(window=()), ()
    return _issue(server)


def give_up_ticket(server: Server, ticket: int) -> tuple[Server, tuple[int, ...]]:
    """sweep.lua, when this ticket was not seen for long although batches wait and slots are free."""
    return _issue(server._replace(window=tuple(one for one in server.window if one != ticket)))


def cancel(server: Server, rules: Rules = RIGHT) -> Server:
    """cancel.lua"""
    if server.ended or server.cancel:
        return server
    cancelled = list(server.cancelled)
    spared = {lease.batch for lease in server.leases} if rules.cancel_spares_leases else set()
    for batch in range(len(server.full)):
        if batch not in spared:
            cancelled[batch] = server.full[batch] & ~server.settled[batch]
    return server._replace(cancel=True, window=(), ready=(), cancelled=tuple(cancelled))


def _again(server: Server, request: Request, reply: tuple[str, Lease | None, tuple[int, ...]]) -> Reply:
    kind, lease, tickets = reply
    if lease is None:
        return kind, None, tickets
    if lease not in server.leases:
        return "empty", None, tickets
    return kind, (lease, server.settled[lease.batch]), tickets


def _grant(server: Server, request: Request) -> tuple[Server, str, Lease | None]:
    without = tuple(one for one in server.window if one != request.ticket)
    if server.cancel:
        return server._replace(window=without), "gone", None
    if request.ticket not in server.window:
        return server, "retired", None
    if not server.ready:
        return server._replace(window=without), "empty", None
    lease = Lease(server.ready[0], server.epoch + 1, request.nonce)
    leases = tuple(sorted((*server.leases, lease)))
    return server._replace(ready=server.ready[1:], leases=leases, epoch=lease.epoch), "ok", lease


def _holds(server: Server, lease: Lease, rules: Rules) -> bool:
    if rules.token_has_nonce:
        return lease in server.leases
    return any((one.batch, one.epoch) == (lease.batch, lease.epoch) for one in server.leases)


def _give_back(server: Server, batch: int) -> Server:
    if server.cancel:
        return server._replace(cancelled=_with(server.cancelled, batch, server.full[batch] & ~server.settled[batch]))
    return server._replace(ready=(batch, *server.ready))


def _issue(server: Server) -> tuple[Server, tuple[int, ...]]:
    if server.cancel:
        return server, ()
    missing = max(0, min(SLOTS, len(server.ready)) - len(server.window))
    tickets = tuple(range(server.last_ticket + 1, server.last_ticket + 1 + missing))
    return server._replace(window=server.window + tickets, last_ticket=server.last_ticket + missing), tickets


def _remember(server: Server, request: Request, reply: object) -> Server:
    return server._replace(memos=_with(server.memos, request.worker, (request.nonce, reply)))


def _with(values: tuple, at: int, value: object) -> tuple:
    return (*values[:at], value, *values[at + 1 :])


# -- every step that can be taken from a state ---------------------------------------------------------------------------


def steps(state: State, rules: Rules = RIGHT) -> Iterator[tuple[Step, State]]:
    """Every step from here and where it leads: first what happens by itself, then, while faults are left, what goes wrong."""
    for number, worker in enumerate(state.workers):
        yield from _work(state, number, worker, rules)
    yield from _sweep(state, rules)
    for request in state.wire:
        arrived = state._replace(wire=_less(state.wire, request))
        yield Step("arrives late", request), _executed(arrived, request, rules)[0]
        yield Step("never arrives", request), arrived
    if state.faults:
        for step, after in _faults(state, rules):
            left = after.faults - 1
            gentle = state.gentle and step.name in GENTLE
            yield step, after._replace(faults=left, before=after.before if left else None, gentle=gentle)


def _work(state: State, number: int, worker: Worker, rules: Rules) -> Iterator[tuple[Step, State]]:
    if worker.request is not None:
        yield Step("executes", worker.request), _answered(state, number, *_executed(state, worker.request, rules))
    elif worker.lease is None and not worker.ticket:
        for ticket in sorted(set(state.queue)):
            count = (worker.count + 1) % NONCES
            request = Request(number, _nonce(number, count), ticket)
            taken = state._replace(queue=_less(state.queue, ticket))
            yield Step("takes", (number, ticket)), _worker(taken, number, Worker(ticket, request=request, count=count))
    elif worker.lease is None:
        if worker.ticket in state.server.window:  # touch_ticket
            state = state._replace(queue=tuple(sorted((*state.queue, worker.ticket))))
        yield Step("puts back", (number, worker.ticket)), _worker(state, number, Worker(count=worker.count))
    else:
        yield from _run(state, number, worker, worker.lease)


def _run(state: State, number: int, worker: Worker, lease: Lease) -> Iterator[tuple[Step, State]]:
    todo = state.server.full[lease.batch] & ~worker.known & ~worker.ran
    if todo:
        bit = todo & -todo
        item = bit.bit_length() - 1
        counts = _with(state.ran[lease.batch], item, state.ran[lease.batch][item] + 1)
        ran = state._replace(ran=_with(state.ran, lease.batch, counts))
        yield Step("runs", (number, lease.batch, item)), _worker(ran, number, worker._replace(ran=worker.ran | bit))
    if worker.ran:  # a part, or the rest
        yield Step("sends", number), _sending(state, number, worker, hand_back=False)


def _sending(state: State, number: int, worker: Worker, *, hand_back: bool) -> State:
    count = (worker.count + 1) % NONCES
    assert worker.lease is not None
    last = not hand_back and worker.known | worker.ran == state.server.full[worker.lease.batch]
    request = Request(number, _nonce(number, count), worker.ticket, worker.lease, worker.ran, hand_back, last)
    return _worker(state, number, worker._replace(request=request, count=count))


def _sweep(state: State, rules: Rules) -> Iterator[tuple[Step, State]]:
    """What the sweeper does for sure: leases of holders that are gone, tickets that are nowhere."""
    server = state.server
    for lease in server.leases:
        if not any(means(worker, lease) for worker in state.workers):
            yield Step("expires", lease), _sent(state, *expire(server, lease, rules))
    if not (rules.sweep_replaces_tickets and server.ready and len(server.leases) < SLOTS):
        return
    somewhere = {*state.queue, *(worker.ticket for worker in state.workers)}
    for ticket in server.window:
        if ticket not in somewhere:
            yield Step("gives up ticket", ticket), _sent(state, *give_up_ticket(server, ticket))
    if len(server.window) < min(SLOTS, len(server.ready)):
        yield Step("widens"), _sent(state, *_issue(server))


def means(worker: Worker, lease: Lease) -> bool:
    """Whether the worker holds the lease or will learn of it."""
    return worker.lease == lease or (worker.request is not None and worker.request.nonce == lease.nonce)


def _faults(state: State, rules: Rules) -> Iterator[tuple[Step, State]]:
    server = state.server
    for number, worker in enumerate(state.workers):
        if worker != Worker(count=worker.count):
            gone = _worker(state, number, Worker(count=worker.count))
            yield Step("dies", number), gone
            if worker.request is not None:
                yield Step("dies, its request stays", number), gone._replace(wire=(*gone.wire, worker.request))
        if worker.request is not None:
            yield Step("executes, reply lost", worker.request), _executed(state, worker.request, rules)[0]
            yield Step("is sent twice", worker.request), state._replace(wire=(*state.wire, worker.request))
        if worker.lease is not None and worker.request is None:
            yield Step("drains", number), _sending(state, number, worker, hand_back=True)
    for lease in server.leases:
        if any(means(worker, lease) for worker in state.workers):
            yield Step("expires", lease), _sent(state, *expire(server, lease, rules))
    for ticket in sorted(set(state.queue)):
        yield Step("ticket repeated", ticket), state._replace(queue=tuple(sorted((*state.queue, ticket))))
        yield Step("ticket lost", ticket), state._replace(queue=_less(state.queue, ticket))
    if server.ready and len(server.leases) < SLOTS:
        for ticket in server.window:
            yield Step("gives up ticket", ticket), _sent(state, *give_up_ticket(server, ticket))
    if not server.ended and not server.cancel:
        yield Step("is cancelled"), _wrote(state, cancel(server, rules))
    if state.before is not None and state.before != server:
        yield Step("goes back in time"), state._replace(server=state.before)


def _executed(state: State, request: Request, rules: Rules) -> tuple[State, Reply]:
    script = claim if request.lease is None else commit
    server, reply = script(state.server, request, rules)
    return _wrote(state, server), reply


def _answered(state: State, number: int, executed: State, reply: Reply) -> State:
    worker = state.workers[number]
    kind, granted, tickets = reply
    request = worker.request
    assert request is not None
    if granted is not None:
        lease, known = granted
        after = Worker(worker.ticket, lease, known, 0, None, worker.count)
    elif request.lease is None or kind in ("empty", "gone", "retired"):
        after = Worker(count=worker.count)  # the ticket was retired
    elif kind == "stale" or request.hand_back or request.last:
        after = Worker(worker.ticket, count=worker.count)
    else:
        after = Worker(worker.ticket, worker.lease, worker.known | request.bits, 0, None, worker.count)
    return _worker(_queued(executed, tickets), number, after)


def _wrote(state: State, server: Server) -> State:
    if server == state.server:
        return state
    return state._replace(server=server, before=state.server if state.faults else None)


def _sent(state: State, server: Server, tickets: tuple[int, ...]) -> State:
    return _queued(_wrote(state, server), tickets)


def _queued(state: State, tickets: tuple[int, ...]) -> State:
    return state._replace(queue=tuple(sorted((*state.queue, *tickets)))) if tickets else state


def _worker(state: State, number: int, worker: Worker) -> State:
    return state._replace(workers=_with(state.workers, number, worker))


def _less(values: tuple, value: object) -> tuple:
    at = values.index(value)
    return values[:at] + values[at + 1 :]


def _nonce(worker: int, count: int) -> int:
    return worker * NONCES + count
