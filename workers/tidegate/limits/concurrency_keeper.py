"""Holds one process's permits of a concurrency limit, renews them, and drops them in time when it cannot."""

from __future__ import annotations

import time

from tidegate.limits.keeper import MS, NEWS_NS, Keeper
from tidegate.limits.port import SuppliedLimit
from tidegate.limits.store import LimitStore, Undeclared
from tidegate.model.limit import Limit

_KEEP_NS = 250 * MS  # permits that nothing waits for are kept this long, so that a short gap costs no request
_FIRST_RETRY_NS, _MOST_RETRY_NS = 10 * MS, 100 * MS
_GIVE_BACK_NS = 20 * MS  # between requests that give back what running items have freed


class ConcurrencyKeeper(Keeper):
    """The server counts ``recorded`` permits as ours; this process uses at most ``capacity`` of them.

    ``capacity`` goes down here first and at the server after, up at the server first and here after, so a lost answer
    only ever leaves permits unused. ``lease_ms`` counts from before the request was sent: by our clock the permits end
    before they end by the server's. Half of it is kept in reserve for a request that hangs.

    What this cannot do: take back items that run. A process that is cut off from the server for longer than a lease starts
    nothing more, but what it runs then goes on beside what others start; its timeouts bound for how long. The same holds
    for a process that was stopped (SIGSTOP, a paused virtual machine) and goes on after its lease.
    """

    def __init__(self, limit: Limit, host: SuppliedLimit, holder: str, store: LimitStore, *, lease_ms: int) -> None:
        super().__init__(limit, host, holder, store)
        self.host: SuppliedLimit = host
        self._lease_ms = lease_ms
        self._sequence = 0
        self._capacity = 0
        self._recorded = 0
        self._ends_ns = 0
        self._renew_ns = 0
        self._retry_ns = 0
        self._retry_after_ns = _FIRST_RETRY_NS
        self._kept = 0
        self._kept_since_ns = 0
        self._limit = limit.concurrency or 1
        host.set_capacity(0)

    def step(self, now_ns: int) -> None:
        in_use, demand = self.host.in_use(), self.host.demand()
        wanted = self._smooth(min(in_use + demand, self._limit), now_ns)
        look = self._next_look(now_ns, active=in_use + demand > 0)
        more = wanted > self._capacity and now_ns >= self._retry_ns
        less = self._recorded > max(wanted, in_use) or self._recorded > max(self._capacity, in_use)
        if more or (self._recorded and now_ns >= self._renew_ns) or (less and now_ns >= self._retry_ns):
            self._ask(wanted, now_ns)
        self.due_ns = look

    def expire(self, now_ns: int) -> int:
        if self._ends_ns and now_ns >= self._ends_ns:
            self._set_capacity(0)
            self._ends_ns = self._recorded = 0
        return self._ends_ns

    def release(self) -> None:
        self._set_capacity(0)
        if self._recorded:
            self._ask(0, time.monotonic_ns())

    def _ask(self, wanted: int, now_ns: int) -> None:
        if wanted < self._capacity:
            self._set_capacity(wanted)
        self._introduce()
        self._sequence += 1
        sent = time.monotonic_ns()
        answer = self.store.hold_permits(
            self.limit.name,
            self.holder,
            sequence=self._sequence,
            want=wanted,
            # What may still start here counts as in use: the server takes nothing back before we have let go of it.
            in_use=max(self._capacity, self.host.in_use()),
            lease_ms=self._lease_ms,
        )
        received = time.monotonic_ns()
        if isinstance(answer, Undeclared):
            self._set_capacity(0)
            self._declare(answer)
            self._retry_ns = received + (NEWS_NS if answer.other_kind else 0)
            return
        self.problem = ""
        self.offset.learn(sent_ns=sent, received_ns=received, server_us=answer.now_us)
        self._learn_pause(answer.paused_us, answer.now_us)
        if not answer.fresh:
            return
        self._limit = answer.limit
        self._recorded = answer.recorded
        self._ends_ns = sent + self._lease_ms * MS // 2 if answer.recorded else 0
        self._renew_ns = sent + min(self._lease_ms * MS // 8, NEWS_NS)
        self._set_capacity(answer.allowed)
        self._plan_retry(received, satisfied=answer.allowed >= wanted, giving_back=answer.recorded > answer.allowed)

    def _plan_retry(self, now_ns: int, *, satisfied: bool, giving_back: bool) -> None:
        if giving_back:
            self._retry_ns = now_ns + _GIVE_BACK_NS
        elif satisfied:
            self._retry_ns, self._retry_after_ns = now_ns, _FIRST_RETRY_NS
        else:
            self._retry_ns = now_ns + self._jitter(self._retry_after_ns)
            self._retry_after_ns = min(self._retry_after_ns * 2, _MOST_RETRY_NS)

    def _set_capacity(self, permits: int) -> None:
        if permits != self._capacity:
            self._capacity = permits
            self.host.set_capacity(permits)

    def _smooth(self, wanted: int, now_ns: int) -> int:
        """The most that was wanted lately: a gap between two items must not give the permit away."""
        if wanted >= self._kept or now_ns - self._kept_since_ns > _KEEP_NS:
            self._kept, self._kept_since_ns = wanted, now_ns
        return self._kept
