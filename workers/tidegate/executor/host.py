"""Host: the C executor of one process, with its threads, its event loop and its crash journal."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigurationError, ExecutorClosed, ExecutorFull
from tidegate.executor import _native
from tidegate.executor.failure import ItemFailure, capture
from tidegate.executor.forks import renew_lock_in_children
from tidegate.executor.kinds import CFunction, as_coroutine, kind_of
from tidegate.executor.lanes import Breaker, HostLimit, lane_options, rate_limit
from tidegate.executor.loops import LoopThread
from tidegate.executor.outlog import OutcomeLog
from tidegate.executor.settled import Settled, settled_of
from tidegate.model.limit import Limit
from tidegate.model.policy import TaskPolicy
from tidegate.telemetry.record import LaneDelta

__all__ = ["Host", "HostLimit", "ItemFailure", "Lane", "Run", "RunningItem", "Settled"]


@dataclass(frozen=True, slots=True)
class RunningItem:
    """An item that runs now. ``where`` has the chain of awaits of a coroutine, outermost first."""

    lane: str
    tag: bytes
    position: int
    attempt: int
    ran_ns: int
    where: tuple[str, ...] = ()


class Run:
    """Items submitted together. Any thread may wait, take, cancel or drain."""

    __slots__ = ("_inside", "_lane")

    def __init__(self, inside: _native.Run, lane: Lane) -> None:
        self._inside = inside
        self._lane = lane

    @property
    def remaining(self) -> int:
        """Items not settled yet."""
        return self._inside.remaining

    @property
    def done(self) -> bool:
        """Whether every item settled or was returned."""
        return self._inside.done

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether everything settled within ``timeout_s`` (``None``: however long it takes).

        A waiting thread helps to run sync items, except the main thread, which stays free for signals, and except where
        items take so long that it could not be back in time.
        """
        if timeout_s is None:
            return self._inside.wait(-1, self._may_help(None))
        return self._inside.wait(max(0, round(timeout_s * 1e9)), self._may_help(timeout_s))

    def _may_help(self, timeout_s: float | None) -> bool:
        if self._lane.kind != _native.KIND_SYNC or threading.current_thread() is threading.main_thread():
            return False
        return timeout_s is None or self._lane.inside.mean_run_ns() < timeout_s * 0.25e9

    def take(self) -> Settled:
        """What settled since the last take."""
        return settled_of(self._inside.take())

    def reported(self) -> None:
        """What was taken is stored for good: the outcome log need not keep it any longer."""
        self._inside.reported()

    def times(self, position: int) -> tuple[int, int, int]:
        """``(run_ns, wait_ns, attempts)`` of a settled position, if the run was started with ``detail``."""
        return self._inside.times(position)

    def limited(self) -> int:
        """Items that wait for their key of a keyed limit."""
        return self._inside.limited(False)[0]

    def limited_until(self) -> int | None:
        """When one of the keys that items wait for is known to open by itself (the end of a pause, the next permit of a
        rate), by ``time.monotonic_ns``; ``None`` when that is not known. Costs a walk over what waits."""
        due_ns = self._inside.limited(True)[1]
        return None if due_ns < 0 else due_ns

    def cancel(self, message: str = "") -> None:
        """Items that wait end as cancelled; running coroutines are cancelled; running sync items finish."""
        self._inside.cancel()

    def drain(self) -> None:
        """Start nothing more of this run: items not started are returned."""
        self._inside.drain()

    def add_done_callback(self, callback: Callable[[_native.Run], object]) -> None:
        """Called once, on whatever thread settles the last item (at once when that has happened)."""
        self._inside.add_done_callback(callback)


class Lane:
    """A task's queue inside the host. Made by :meth:`Host.lane`."""

    __slots__ = ("_host", "inside", "kind", "name", "policy")

    def __init__(self, host: Host, name: str, inside: _native.Lane, kind: int, policy: TaskPolicy) -> None:
        self._host = host
        self.name = name
        self.inside = inside
        self.kind = kind
        self.policy = policy

    def start(
        self,
        items: Sequence[Any],
        *,
        shape: int = 0,
        tag: bytes = b"",
        first_index: int = 0,
        skip: bytes = b"",
        attempts: bytes = b"",
        crashes: bytes = b"",
        context: Context | None = None,
        job_id: str | None = None,
        origin: str | None = None,
        function: Callable[..., Any] | None = None,
        detail: bool = False,
    ) -> Run:
        """Submit items: all of them, or ``ExecutorFull`` and none.

        ``shape``: see :class:`tidegate.model.wire.Shape`. ``tag``: 16 bytes for the crash journal. ``skip``: bitmap of
        positions that are not to run. ``attempts`` and ``crashes``: a byte per item, what was tried before. ``context``:
        the contextvars that items see (each gets a copy). ``origin``: ``file:line in function`` that submitted them.
        """
        inside = self.inside.start(
            items, function, shape, tag, first_index, skip, attempts, crashes, context, job_id, origin, detail
        )
        return Run(inside, self)

    def set_concurrency(self, permits: int) -> None:
        """Items at once from now on."""
        self.inside.set_concurrency(permits)


class Host:
    """One per worker process: owns the C core, its threads and the loop thread.

    ``threads``: most threads for sync items (default: as many as lanes allow items at once, at most 1,024). ``journal``:
    path of the crash journal, ``journal_slots``: items at once that it can name. ``max_items``: items waiting in one lane
    before ``ExecutorFull``. ``outcomes``: keep outcomes where they survive the process until :meth:`Run.reported` or the
    end of their run (only of runs that were started with a ``tag``). ``slabs=False`` gives every item an allocation of its
    own, to show what the pool gains.
    ``capture`` makes the record of an item that failed.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        journal: Path | None = None,
        journal_slots: int = 1024,
        outcomes: OutcomeLog | None = None,
        max_items: int = 1_000_000,
        name: str = "tidegate",
        slabs: bool = True,
        capture: Callable[..., ItemFailure] = capture,
    ) -> None:
        if threads is not None and threads < 1:
            raise ConfigurationError(f"threads={threads}", remedy="use 1 or more, or None to follow demand")
        self.name = name
        self.journal_path = journal
        self.outcomes_path = outcomes.path if outcomes is not None else None
        self._max_items = max_items
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        renew_lock_in_children(self)
        self._lanes: dict[str, Lane] = {}
        self._paused = False
        self._closed = False
        self._loops: list[LoopThread] = []  # none or one
        self._guests: dict[int, tuple[asyncio.AbstractEventLoop, _native.Pump]] = {}
        spawner = _Spawner(self._threads, name)
        seed = int.from_bytes(os.urandom(7), "little")
        log = (outcomes.path, outcomes.chunks, outcomes.encode, outcomes.describe) if outcomes is not None else None
        self._core = _native.Core(capture, spawner, journal, journal_slots, threads or 0, slabs, seed, log)
        spawner.core = weakref.ref(self._core)
        self._finalizer = weakref.finalize(self, _abandon, self._core, self._loops)
        self._finalizer.atexit = False
        _close_at_exit(self)

    @property
    def core(self) -> _native.Core:
        """The binding's core, for the other modules of this package."""
        return self._core

    def limit(
        self,
        name: str,
        *,
        rate_per_s: float | None = None,
        burst: int | None = None,
        concurrency: int | None = None,
        supplied: bool = False,
        keyed: bool = False,
    ) -> HostLimit:
        """A limit that lanes may share. ``supplied``: its permits come from outside (:meth:`HostLimit.offer`, or
        :meth:`HostLimit.set_capacity`, which starts at 0). ``keyed``: each key has permits of its own."""
        return HostLimit.create(
            self._core,
            name,
            rate_per_s=rate_per_s,
            burst=burst,
            concurrency=concurrency,
            supplied=supplied,
            keyed=keyed,
        )

    def limit_of(self, limit: Limit, *, supplied: bool = False) -> HostLimit:
        """What a :class:`Limit` says, as a limit of this host."""
        return self.limit(
            limit.name,
            rate_per_s=limit.rate_per_s,
            burst=limit.burst_permits if limit.rate is not None else None,
            concurrency=limit.concurrency,
            supplied=supplied,
            keyed=limit.key is not None,
        )

    def breaker(self, name: str, breaker: Breaker) -> HostLimit:
        """A circuit breaker that lanes may share, given to them among their limits."""
        return HostLimit.breaker(self._core, name, breaker, keyed=breaker.key is not None)

    def lane(
        self,
        name: str,
        function: Callable[..., Any] | CFunction,
        policy: TaskPolicy,
        *,
        limits: Sequence[HostLimit] = (),
        keys: Sequence[Callable[..., Any]] = (),
        kind: int | None = None,
        priority: int = 0,
        max_wait_s: float | None = None,
    ) -> Lane:
        """A lane for a function with its policy. ``keys``: one key function per keyed limit, in their order.

        ``max_wait_s``: see ``TaskPolicy.max_wait``; 0 keeps every wait in memory.
        """
        kind = kind_of(function) if kind is None else kind
        if policy.hard_timeout is not None:
            # The watchdog raises this signal before it ends the process: watchdog.c.
            faulthandler.register(signal.SIGRTMIN + 7, file=2, all_threads=True)
        if kind == _native.KIND_COROUTINE:
            self._ensure_loop()
        all_limits = (*limits, *rate_limit(self._core, name, policy))
        options = lane_options(policy, max_wait_s=max_wait_s, capacity=self._max_items, priority=priority)
        inside = self._core.lane(
            name,
            function,
            kind,
            options.classify(all_limits),
            tuple(limit.inside for limit in all_limits),
            tuple(keys),
            **options.numbers,
        )
        lane = Lane(self, name, inside, kind, policy)
        with self._lock:
            self._lanes[name] = lane
        if self._paused:
            inside.set_paused(True)
        return lane

    def _ensure_loop(self) -> None:
        with self._lock:
            if not self._loops:
                self._core.check()
                self._loops.append(LoopThread(self._core, self.name))

    def is_on_loop(self) -> bool:
        """Whether the caller runs on this host's own loop."""
        return bool(self._loops) and self._loops[0].thread is threading.current_thread()

    # ---- loops of others ----

    def attach_loop(self) -> int:
        """Serve lanes of the returned kind on the running loop, until the loop is closed or :meth:`detach_loop`."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for kind, (guest, _pump) in self._guests.items():
                if guest is loop:
                    return kind
            self._forget_closed_loops()
            taken = {(kind >> 2).bit_length() - 1 for kind in self._guests}
            index = next((number for number in range(1, 14) if number not in taken), None)
            if index is None:
                raise ExecutorFull(
                    "13 event loops share this executor already", remedy="use one executor for each loop"
                )
            pump = _native.Pump(self._core, loop, as_coroutine, index)
            self._guests[pump.kind] = (loop, pump)
            return pump.kind

    async def detach_loop(self, timeout_s: float = 30.0) -> bool:
        """Cancel this loop's coroutine items, wait for them, and let go of the loop."""
        loop = asyncio.get_running_loop()
        found = next((item for item in self._guests.items() if item[1][0] is loop), None)
        if found is None:
            return True
        kind, (_loop, pump) = found
        pump.quiesce()
        deadline = loop.time() + timeout_s
        while pump.flights and loop.time() < deadline:
            await asyncio.sleep(0.001)
        ended = pump.flights == 0
        pump.close()
        del self._guests[kind]
        return ended

    def _forget_closed_loops(self) -> None:
        for kind, (loop, pump) in list(self._guests.items()):
            if loop.is_closed():
                _close_pump(pump)
                del self._guests[kind]

    # ---- facts ----

    def snapshot(self) -> list[LaneDelta]:
        """Counters and times of each lane since the last call. One caller at a time."""
        with self._lock:
            lanes = list(self._lanes.values())
        return [_delta(lane, lane.inside.snapshot()) for lane in lanes]

    def running(self) -> list[RunningItem]:
        """Items that run now: coroutines with the chain of awaits; sync items too when there is a journal."""
        found: list[RunningItem] = []
        if self.journal_path is not None:
            from tidegate.executor.journal import read

            now = time.monotonic_ns()
            found.extend(
                RunningItem("", entry.tag, entry.position, entry.attempt, now - entry.started_mono_ns)
                for entry in read(self.journal_path)
            )
        else:
            found.extend(RunningItem("", b"", -1, 0, ran_ns) for _tag, ran_ns in self._core.running())
        pump = self._loops[0].pump if self._loops else None
        if pump is not None:
            found.extend(
                RunningItem(
                    lane, b"", position, 0, ran_ns, tuple(f"{file}:{line} in {name}" for file, line, name in frames)
                )
                for lane, position, ran_ns, frames in pump.stacks()
            )
        return found

    def stats(self) -> dict[str, int]:
        """Items, slabs, timers and threads of the core."""
        return self._core.stats()

    # ---- memory pressure ----

    def pause(self) -> None:
        """Start nothing new; running items go on."""
        self._set_paused(True)

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        self._set_paused(False)

    def _set_paused(self, paused: bool) -> None:
        with self._lock:
            self._paused = paused
            for lane in self._lanes.values():
                lane.inside.set_paused(paused)

    # ---- the end ----

    def close(self, *, timeout_s: float | None = 30.0) -> bool:
        """Cancel what waits, cancel running coroutines, let running sync items end; leave no thread, timer or task behind.

        False: something would not end in time (its daemon thread is abandoned). Safe to call twice, and in a forked child.
        """
        deadline = time.monotonic() + (timeout_s if timeout_s is not None else 1e9)
        with self._lock:
            if self._closed:
                return True
            self._closed = True
        self._finalizer.detach()
        try:
            self._core.close(True)
        except ExecutorClosed:  # forked: the threads are the parent's
            self._core.stop()
            return True
        ended = True
        for loop in self._loops:
            ended = loop.close(max(0.0, deadline - time.monotonic())) and ended
        for kind, (guest, pump) in list(self._guests.items()):
            _close_guest(guest, pump)
            del self._guests[kind]
        self._core.stop()
        asked: set[threading.Thread] = {threading.current_thread()}
        while left := [thread for thread in list(self._threads) if thread not in asked]:
            for thread in left:  # one of them may be starting another
                with contextlib.suppress(RuntimeError):  # Ctrl-C came before it was started
                    thread.join(max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX)))
                ended = ended and not thread.is_alive()
            asked.update(left)
        with self._lock:
            self._lanes.clear()
        if ended and self.journal_path is not None:
            self.journal_path.unlink(missing_ok=True)
        if ended and self.outcomes_path is not None:
            self.outcomes_path.unlink(missing_ok=True)
        return ended

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _close_pump(pump: _native.Pump) -> None:
    try:
        pump.close()
    except RuntimeError:  # its loop is closed: there is nothing left to let go of
        return


def _close_guest(loop: asyncio.AbstractEventLoop, pump: _native.Pump) -> None:
    """From whatever thread: what runs on the loop is cancelled there and ends without us."""

    def end() -> None:
        pump.quiesce()
        _close_pump(pump)

    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop or not loop.is_running():
        end() if not loop.is_closed() else _close_pump(pump)
    else:
        loop.call_soon_threadsafe(end)


class _Spawner:
    """Starts the threads that C asks for. It must not hold the core: the core holds it."""

    def __init__(self, threads: list[threading.Thread], name: str) -> None:
        self._threads = threads
        self._lock = threading.RLock()  # a signal's handler may come back here
        self._name = name
        self._number = 0
        self.core: weakref.ref[_native.Core] | None = None

    def __call__(self, role: str) -> None:
        core = self.core() if self.core is not None else None
        if core is None:
            raise ExecutorClosed("executor is closed", remedy="create a new one")
        target = core.serve if role == "serve" else core.interrupt
        with self._lock:
            self._number += 1
            thread = threading.Thread(target=target, name=f"{self._name}-{role}-{self._number}", daemon=True)
            # Noted before it is started, so that whoever closes waits for it, also when Ctrl-C comes while it starts.
            self._threads[:] = [other for other in self._threads if other.is_alive() or other.ident is None]
            self._threads.append(thread)
        thread.start()


def _abandon(core: _native.Core, loops: list[LoopThread]) -> None:
    """A host that was forgotten rather than closed: its idle threads end, nobody waits for them."""
    try:
        core.close(True)
    except ExecutorClosed:
        return
    for loop in loops:
        loop.abandon()
    core.stop()


def _close_at_exit(host: Host) -> None:
    reference = weakref.ref(host)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close(timeout_s=5.0)

    try:
        # Before non-daemon threads are joined, so that one of them waiting for items cannot wait for ever.
        threading._register_atexit(close)  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise ExecutorClosed("the interpreter is shutting down", remedy="create executors earlier") from error


def _delta(lane: Lane, facts: dict[str, Any]) -> LaneDelta:
    refused = sum(facts[f"refused_{reason}"] for reason in ("deadline", "budget", "breaker"))
    return LaneDelta(
        task=lane.name,
        started=facts["started"],
        succeeded=facts["succeeded"],
        failed=facts["failed"],
        timed_out=facts["timed_out"],
        cancelled=facts["cancelled"],
        crashed=facts["crashed"],
        retried=facts["retried"],
        retries_refused=refused,
        busy_ns=facts["busy_ns"],
        concurrency=facts["concurrency"],
        running=facts["running"],
        peak_running=facts["peak_running"],
        waiting_queued=facts["ready"],
        waiting_limited=facts["limited"],
        waiting_backoff=facts["backing_off"],
        stats=facts["stats"],
        errors=facts["errors"],
    )
