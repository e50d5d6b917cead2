"""What the supervisor does for a process that died: name what was running, charge it, and hand the leases back at once.

The held-lease file says which batches the dead process had, the crash journal which of their items were running. Those
items alone are charged with a crash. Items that were done but not committed yet run again; items that had not started are
not blamed. An item that has crashed too often becomes a dead letter when its batch is claimed next.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import LedgerError
from tidegate.executor.journal import read_journal
from tidegate.ledger.port import Committed, Ledger, Refused, Settlement
from tidegate.worker.held import HeldLease, read_held
from tidegate.worker.patience import PASSING
from tidegate.worker.settle import crash_fingerprint

log = logging.getLogger(__name__)

SendTickets = Callable[[str, str, tuple[int, ...]], None]
#: One running item: the tag of its lease and its position in the batch.
Suspect = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended. ``status`` is what ``os.waitpid`` gave; ``guilty`` is set when the supervisor ended it."""

    pid: int
    status: int
    memory: int = 0
    memory_limit: int = 0
    guilty: frozenset[Suspect] | None = None
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code, or the negative number of the signal."""
        return os.waitstatus_to_exitcode(self.status)

    def __str__(self) -> str:
        code = self.exit_code
        text = f"ended by {_signal_name(-code)}" if code < 0 else f"exited with code {code}"
        if self.reason:
            text += f" ({self.reason})"
        elif code == -signal.SIGKILL and self.memory_limit and self.memory > 0.8 * self.memory_limit:
            text += f" (probably out of memory: it used {self.memory:,} of {self.memory_limit:,} bytes)"
        return text


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was left of a dead process. ``running``: positions by the tag of their lease."""

    held: list[HeldLease]
    running: Mapping[bytes, Collection[int]]

    @property
    def suspects(self) -> int:
        """Items that were running."""
        return sum(len(positions) for positions in self.running.values())


def salvage(held_path: Path, journal_path: Path, guilty: frozenset[Suspect] | None = None) -> Salvage:
    """Read what the process left. Files that are missing or damaged count as empty: then the leases expire."""
    _, held = read_held(held_path)
    tags = {lease.tag for lease in held}
    running: dict[bytes, set[int]] = {}
    for tag, position in guilty or running_items(journal_path):
        if tag in tags:
            running.setdefault(tag, set()).add(position)
    return Salvage(held, running)


def overdue_items(held_path: Path, journal_path: Path) -> frozenset[Suspect]:
    """Items of a process, alive or just dead, that have been running for longer than their hard timeout."""
    _, held = read_held(held_path)
    limits = {lease.tag: lease.hard_timeout_s for lease in held if lease.hard_timeout_s > 0}
    if not limits:
        return frozenset()
    now_ns = time.monotonic_ns()
    try:
        entries = read_journal(journal_path)
    except (OSError, ValueError):
        return frozenset()
    return frozenset(
        (entry.tag, entry.position)
        for entry in entries
        if entry.tag in limits and now_ns - entry.started_mono_ns > limits[entry.tag] * 1e9
    )


def running_items(journal_path: Path) -> list[Suspect]:
    """Items that a process, alive or dead, is running by its journal."""
    try:
        return [(entry.tag, entry.position) for entry in read_journal(journal_path)]
    except (OSError, ValueError) as error:
        log.warning("crash journal not readable path=%s reason=%s", journal_path.name, error)
        return []


def hand_back(
    ledger: Ledger,
    found: Salvage,
    death: Death,
    *,
    patience_s: float,
    send_tickets: SendTickets,
    stop: threading.Event | None = None,
) -> int:
    """Hand back every lease, with a crash charged to what was running; how many the ledger took back.

    Tries for ``patience_s`` while the ledger is away; later the leases have expired anyway. The dead process's tickets, and
    those that the ledger asks for, go out by ``send_tickets(queue, job_id, numbers)``, so that others can go on at once.
    """
    waiting = list(found.held)
    nonces = {lease.tag: secrets.token_hex(8) for lease in waiting}
    taken = 0
    pause = stop or threading.Event()
    for wait_s in _waits(patience_s):
        left = []
        for lease in waiting:
            positions = found.running.get(lease.tag, ())
            try:
                reply = ledger.commit(
                    lease.lease(), _settlement(lease, positions, death), nonce=nonces[lease.tag], lease_ms=1000
                )
            except PASSING:
                left.append(lease)
            except LedgerError as error:
                log.warning("lease not handed back job=%s batch=%d reason=%s", lease.job_id, lease.batch, error)
            else:
                taken += _noted(lease, positions, reply)
                _send_on(ledger, lease, reply, send_tickets)
        waiting = left
        if not waiting or pause.wait(wait_s):
            break
    return taken


def _settlement(lease: HeldLease, positions: Collection[int], death: Death) -> Settlement:
    crashes = bytearray(lease.crashes or bytes(lease.items))
    for position in positions:
        if position < lease.items:
            crashes[position] = min(255, crashes[position] + 1)
    return Settlement(
        settled=0,
        executions=len(positions),
        traces={crash_fingerprint(lease.task): _account(lease, positions, death)} if positions else {},
        hand_back=True,
        attempts=lease.attempts,
        crashes=bytes(crashes) if positions else b"",
    )


def _account(lease: HeldLease, positions: Collection[int], death: Death) -> str:
    """What is known of the crash, as the dead letter's trace."""
    items = ", ".join(str(lease.first_index + position) for position in sorted(positions)[:20])
    more = "" if len(positions) <= 20 else f" and {len(positions) - 20} more"
    memory = (
        f"It used {death.memory:,} bytes of memory when it last looked" if death.memory else "Its memory is not known"
    )
    limit = f", its limit is {death.memory_limit:,}" if death.memory_limit else ""
    return (
        f"Worker process {death.pid} {death}.\n"
        f"By its crash journal it was running of task {lease.task}: item {items}{more}.\n"
        f"{memory}{limit}.\n"
        "A process that dies leaves no Python traceback; its last words, if any, are in the worker's log."
    )


def _send_on(ledger: Ledger, lease: HeldLease, reply: Committed | Refused, send_tickets: SendTickets) -> None:
    tickets = list(reply.tickets) if isinstance(reply, Committed) else []
    try:
        if lease.ticket >= 0 and ledger.touch_ticket(lease.job_id, lease.ticket):
            tickets.append(lease.ticket)
    except LedgerError:
        log.debug("ticket not sent on, the sweeper replaces it")
    if tickets and lease.queue:
        send_tickets(lease.queue, lease.job_id, tuple(tickets))


def _noted(lease: HeldLease, positions: Collection[int], reply: Committed | Refused) -> int:
    if isinstance(reply, Refused):  # settled in the last moment, or expired already
        log.info("lease was not held any more job=%s batch=%d", lease.job_id, lease.batch)
        return 0
    items = sorted(lease.first_index + position for position in positions)
    log.warning(
        "lease handed back job=%s batch=%d charged_items=%s", lease.job_id, lease.batch, items[:20] if items else "none"
    )
    return 1


def _waits(patience_s: float) -> list[float]:
    """Pauses that add up to about the patience."""
    waits: list[float] = []
    wait_s = 0.05
    while sum(waits) < patience_s:
        waits.append(wait_s)
        wait_s = min(1.0, wait_s * 2)
    return waits


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
