"""LimitAgent: one thread per process that keeps every cluster-wide limit of the process supplied."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import cast

import redis

from tidegate.limits.concurrency_keeper import ConcurrencyKeeper
from tidegate.limits.keeper import MS, Keeper
from tidegate.limits.keyed_concurrency_keeper import KeyedConcurrencyKeeper
from tidegate.limits.keyed_keeper import KeyedKeeper
from tidegate.limits.keyed_rate_keeper import KeyedRateKeeper
from tidegate.limits.port import SuppliedKeys, SuppliedLimit
from tidegate.limits.rate_keeper import RateKeeper
from tidegate.limits.store import LimitStore
from tidegate.model.limit import Limit

log = logging.getLogger("tidegate.limits")

_FIRST_BACKOFF_NS, _MOST_BACKOFF_NS = 50 * MS, 1000 * MS
#: An agent that looks by itself within this time is not woken.
_SOON_NS = MS
#: Pauses remembered as told; those that are over are dropped when there are this many.
_MOST_TOLD = 10_000

#: Name of a limit; the key, or ``None`` for all of it.
Paused = tuple[str, int | None]


class LimitAgent:
    """Leases permits from ``client``'s server for the limits of this process, as ``holder`` (unique per process start).

    ``limits``: by name, what the limit is and the executor's side of it. ``lease_s``: seconds after which a dead
    process's concurrency permits come back; a live process that cannot renew them stops starting items after half of it.
    While the server is away nothing is granted; slots that were leased before may be used, and then nothing.

    The definition of a limit is the one of the process that first used it last; the others learn it with their next
    request.
    """

    def __init__(
        self,
        client: redis.Redis,
        limits: Mapping[str, tuple[Limit, SuppliedLimit | SuppliedKeys]],
        holder: str,
        *,
        lease_s: float = 8.0,
    ) -> None:
        self._lease_ms = round(lease_s * 1000)
        # A request opens a connection and loads a script in at most 7 exchanges; half a lease is the reserve for them.
        self._store = LimitStore(client, timeout_s=lease_s / 16)
        self._holder = holder
        self._keepers: dict[str, Keeper] = {}
        self._wake = threading.Event()
        self._woken = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._pauses: dict[Paused, int] = {}
        self._told: dict[Paused, int] = {}
        self._sleeps_until_ns = 0
        self._lock = threading.Lock()
        self._down_until_ns = 0
        self._backoff_ns = _FIRST_BACKOFF_NS
        self._warned = False
        for limit, host in limits.values():
            self.add(limit, host)

    def add(self, limit: Limit, host: SuppliedLimit | SuppliedKeys) -> None:
        """Supply one more limit, also while running. ``host`` is of the kind that the limit needs: with keys or without."""
        keeper: Keeper
        store, holder = self._store, self._holder
        if limit.key is not None:
            by_key = cast("SuppliedKeys", host)
            by_key.on_key_retry_after = self._on_key_retry_after
            if limit.concurrency is not None:
                keeper = KeyedConcurrencyKeeper(limit, by_key, holder, store, lease_ms=self._lease_ms)
            else:
                keeper = KeyedRateKeeper(limit, by_key, holder, store)
        else:
            whole = cast("SuppliedLimit", host)
            whole.on_retry_after = self._on_retry_after
            if limit.concurrency is not None:
                keeper = ConcurrencyKeeper(limit, whole, holder, store, lease_ms=self._lease_ms)
            else:
                keeper = RateKeeper(limit, whole, holder, store)
        with self._lock:
            self._keepers = {**self._keepers, limit.name: keeper}
        self._wake.set()

    def start(self) -> None:
        """Start the thread; a limit is declared when it is first used."""
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="tidegate-limits", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Grant nothing more, give back what is not in use, end the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._thread = None
        self._store.close()

    def wake(self) -> None:
        """Say that there may be demand now (a batch was started); without it, demand is seen within 50 ms.

        Costs next to nothing while there is work: then the agent looks every few milliseconds by itself.
        """
        if self._sleeps_until_ns - time.monotonic_ns() > _SOON_NS:
            self._woken = True
            self._wake.set()

    def problems(self) -> dict[str, str]:
        """Why limits grant nothing here, by name; empty when all is well."""
        return {name: keeper.problem for name, keeper in self._keepers.items() if keeper.problem}

    def _on_retry_after(self, name: str, delay_s: float) -> None:
        """Called by the executor, from any thread: stop here at once, tell the cluster with the next turn."""
        keeper = self._keepers.get(name)
        if keeper is not None and delay_s > 0:
            until = time.monotonic_ns() + round(delay_s * 1e9)
            keeper.host.pause_until(until)
            self._tell((name, None), until)

    def _on_key_retry_after(self, name: str, key: int, delay_s: float) -> None:
        """The same for one key."""
        keeper = self._keepers.get(name)
        if isinstance(keeper, KeyedKeeper) and delay_s > 0:
            until = time.monotonic_ns() + round(delay_s * 1e9)
            keeper.keys.pause_key_until(key, until)
            self._tell((name, key), until)

    def _tell(self, what: Paused, until_ns: int) -> None:
        with self._lock:
            # Hundreds of items may be told the same thing at once; one write is enough.
            if until_ns > self._told.get(what, 0) + 20 * MS:
                if len(self._told) >= _MOST_TOLD:
                    now = time.monotonic_ns()
                    self._told = {key: until for key, until in self._told.items() if until > now}
                self._told[what] = self._pauses[what] = until_ns
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            if self._woken:
                self._woken = False
                for keeper in self._keepers.values():
                    keeper.look_soon()
            self._turn()
            if not self._stopping:
                self._sleeps_until_ns = self._next_due()
                self._wake.wait(max(0.0005, (self._sleeps_until_ns - time.monotonic_ns()) / 1e9))
        for keeper in self._keepers.values():
            with contextlib.suppress(redis.RedisError, OSError):  # what is not given back ends with its lease
                keeper.release()

    def _turn(self) -> None:
        self._send_pauses()
        for keeper in list(self._keepers.values()):
            now = self._expire_all()
            if now >= keeper.due_ns and now >= self._down_until_ns and not self._stopping:
                self._guarded(keeper, now)

    def _expire_all(self) -> int:
        now = time.monotonic_ns()
        for keeper in self._keepers.values():
            keeper.expire(now)
        return now

    def _next_due(self) -> int:
        ends = [end for end in (keeper.expire(0) for keeper in self._keepers.values()) if end]
        due = [max(keeper.due_ns, self._down_until_ns) for keeper in self._keepers.values()]
        return min([*ends, *due], default=time.monotonic_ns() + 1000 * MS)

    def _send_pauses(self) -> None:
        while self._pauses and time.monotonic_ns() >= self._down_until_ns:
            with self._lock:
                (name, key), until = self._pauses.popitem()
            self._expire_all()
            seconds = (until - time.monotonic_ns()) / 1e9
            if seconds > 0 and not self._guarded(self._keepers[name], 0, pause_s=seconds, key=key):
                with self._lock:
                    self._pauses.setdefault((name, key), until)

    def _guarded(self, keeper: Keeper, now_ns: int, *, pause_s: float = 0.0, key: int | None = None) -> bool:
        """One step of one keeper; when the server is away, all of them wait."""
        answers = self._store.answers
        try:
            if key is not None and isinstance(keeper, KeyedKeeper):
                keeper.pause_key(key, pause_s)
            elif pause_s:
                keeper.pause(pause_s, now_ns)
            else:
                keeper.step(now_ns)
        except (redis.RedisError, OSError) as error:
            self._down_until_ns = time.monotonic_ns() + self._backoff_ns
            self._backoff_ns = min(self._backoff_ns * 2, _MOST_BACKOFF_NS)
            if not self._warned:
                log.warning("limits: the server does not answer, nothing is granted until it does: %s", error)
                self._warned = True
            return False
        except Exception:
            # A mistake in one limit must not take the supply of the others, nor the renewal of what they hold.
            log.exception("limit %r: nothing is granted for a second", keeper.limit.name)
            keeper.due_ns = time.monotonic_ns() + 1000 * MS
            return False
        if self._warned and self._store.answers > answers:
            log.warning("limits: the server answers again")
            self._warned, self._backoff_ns = False, _FIRST_BACKOFF_NS
        return True
