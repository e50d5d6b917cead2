"""Gate, patience, memory guard, slots, and the rule for replacing processes."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from tidegate.errors import LedgerUnavailable
from tidegate.worker.child import Child
from tidegate.worker.gate import Gate
from tidegate.worker.logs import LineFormatter
from tidegate.worker.memory import MemoryGuard, memory_limit
from tidegate.worker.patience import Patience
from tidegate.worker.pulse import Ticker
from tidegate.worker.slots import Slots


def test_a_held_gate_keeps_tickets_waiting_and_a_drain_sends_them_on() -> None:
    gate = Gate()
    gate.hold(True)
    answers: list[bool] = []
    waiting = [threading.Thread(target=lambda: answers.append(gate.wait_open())) for _ in range(3)]
    for thread in waiting:
        thread.start()
    gate.drain()
    for thread in waiting:
        thread.join(60)
    assert answers == [False] * 3
    gate.hold(False)
    assert not gate.is_open, "a drain is for good"


def test_patience_repeats_the_same_call_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    patience = Patience(Gate())
    answers = iter([LedgerUnavailable("away"), LedgerUnavailable("away"), 7])

    def call() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with caplog.at_level(logging.WARNING):
        assert patience.ask(call, give_up=lambda: False) == 7
    assert [record.message.split(" ")[1] for record in caplog.records] == ["does", "answers"]
    assert not patience.is_away


def test_patience_ends_when_the_process_has_to_stop() -> None:
    gate = Gate()
    patience = Patience(gate)
    gate.drain(hurry=True)

    def call() -> None:
        raise LedgerUnavailable("away")

    with pytest.raises(LedgerUnavailable):
        patience.ask(call, give_up=lambda: gate.hurry)


class _Memory:
    def __init__(self, gate: Gate) -> None:
        self.now = 0
        self.busy = False
        self.replaced: list[str] = []
        self.guard = MemoryGuard(
            gate=gate,
            limit=1000,
            soft=0.8,
            hard=0.95,
            busy=lambda: self.busy,
            replace=self.replaced.append,
            used=lambda: self.now,
        )

    def use(self, number: int) -> None:
        self.now = number
        self.guard.check()


def test_above_the_soft_mark_nothing_is_claimed_until_memory_is_clearly_below_it() -> None:
    gate = Gate()
    memory = _Memory(gate)
    memory.use(700)
    assert gate.is_open
    memory.use(800)
    assert not gate.is_open
    memory.use(790)
    assert not gate.is_open
    memory.use(740)
    assert gate.is_open
    memory.use(810)
    assert (memory.guard.soft_crossings, memory.guard.hard_crossings, memory.guard.peak) == (2, 0, 810)
    assert memory.replaced == []


def test_above_the_hard_mark_the_process_is_replaced_once() -> None:
    gate = Gate()
    memory = _Memory(gate)
    memory.use(960)
    memory.use(970)
    assert len(memory.replaced) == 1
    assert not gate.is_open
    assert memory.guard.hard_crossings == 1


def test_a_process_that_stays_above_the_soft_mark_with_nothing_to_do_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    memory = _Memory(Gate())
    memory.busy = True
    memory.use(850)
    now[0] += 60
    memory.use(850)
    assert memory.replaced == [], "it is busy: memory may still come back"
    memory.busy = False
    now[0] += 60
    memory.use(850)
    assert len(memory.replaced) == 1


def test_the_limit_of_a_process_is_its_share_of_what_there_is() -> None:
    assert memory_limit(5 << 20, 4) == 5 << 20
    assert memory_limit(None, 1) >= memory_limit(None, 2) >= 64 << 20


def test_slots_count_the_time_with_a_batch_also_while_it_lasts() -> None:
    slots = Slots("w", 2)
    slot = slots.take()
    slot.busy()
    since = slot.busy_from_ns
    assert slots.totals(since + 500).busy_ns == 500
    slots.give_back(slot)
    assert slots.free == 2
    assert slots.totals(slot.busy_ns + since).busy_ns == slot.busy_ns
    assert len({slot.nonce() for _ in range(100)} | {slots.all[1].nonce()}) == 101
    assert slot.nonce().isalnum()


def test_unexplained_deaths_soon_after_the_start_wait_ever_longer_and_explained_ones_do_not(tmp_path: Path) -> None:
    child = Child(0, "c", tmp_path)
    waits = [child.end(explained=False) for _ in range(12)]
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert waits == sorted(waits)
    assert waits[-1] == 10.0
    child.ready_at = time.monotonic()
    assert child.end(explained=True) == 0.0
    child.ready_at = time.monotonic() - 60
    assert child.end(explained=False) == 0.0, "it had been well for long"


def test_a_log_line_shows_no_password() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "lost %s", ("redis://me:secret@host/0",), None)
    line = LineFormatter("worker").format(record)
    assert "secret" not in line
    assert "redis://me:***@host/0" in line
    assert line.split(" ")[1:3] == ["INFO", "worker"]


def test_a_ticker_goes_on_after_an_error() -> None:
    turns = threading.Semaphore(0)

    def turn() -> None:
        turns.release()
        raise RuntimeError("once more")

    logging.disable(logging.CRITICAL)
    try:
        ticker = Ticker("t", 0.001, turn)
        ticker.start()
        for _ in range(3):
            assert turns.acquire(timeout=60)
        ticker.stop(60)
    finally:
        logging.disable(logging.NOTSET)
