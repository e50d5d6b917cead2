"""One alone, or many together: never both."""

from __future__ import annotations

import threading

from tidegate.worker.quiet import Quiet


def test_nobody_runs_beside_one_that_runs_alone() -> None:
    quiet = Quiet(patience_s=600.0)
    inside: list[str] = []
    overlaps: list[list[str]] = []
    lock = threading.Lock()

    def step(name: str, bad: bool) -> None:
        with lock:
            inside.append(name)
            if bad:
                overlaps.append(list(inside))
        with lock:
            inside.remove(name)

    def together() -> None:
        for _ in range(200):
            with quiet.together(lambda: False):
                step("together", "alone" in inside)

    def alone() -> None:
        for _ in range(20):
            with quiet.alone(lambda: None, lambda: False) as granted:
                assert granted
                step("alone", len(inside) > 0)

    threads = [threading.Thread(target=target) for target in (together, together, alone, alone)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert overlaps == []


def test_who_waits_to_be_alone_hushes_the_others_and_goes_before_new_ones() -> None:
    quiet = Quiet(patience_s=600.0)
    hushed, ended, order = threading.Event(), threading.Event(), []

    def long() -> None:
        with quiet.together(lambda: False):
            running.set()
            assert hushed.wait(30)
        ended.set()

    def late() -> None:
        assert hushed.wait(30)
        with quiet.together(lambda: False):
            order.append("late")

    running = threading.Event()
    threads = [threading.Thread(target=long), threading.Thread(target=late)]
    for thread in threads:
        thread.start()
    assert running.wait(30)
    with quiet.alone(hushed.set, lambda: False) as granted:
        assert granted
        assert ended.wait(30)
        order.append("alone")
    for thread in threads:
        thread.join(30)
    assert order == ["alone", "late"]


def test_who_gives_up_waiting_does_not_run_and_holds_up_nobody() -> None:
    quiet = Quiet()
    with quiet.together(lambda: False), quiet.alone(lambda: None, lambda: True) as granted:
        assert not granted
    with quiet.together(lambda: False), quiet.together(lambda: False):
        pass


def test_nobody_waits_for_quiet_for_longer_than_patience() -> None:
    """Neither those that go together, nor a second one that wants to be alone, nor one that others do not leave alone."""
    quiet = Quiet(0.01)
    with quiet.alone(lambda: None, lambda: False) as first:
        with quiet.together(lambda: False):
            pass
        with quiet.alone(lambda: None, lambda: False) as second:
            assert first
            assert second
    with quiet.together(lambda: False), quiet.alone(lambda: None, lambda: False) as granted:
        assert granted


def test_patience_is_for_one_item_and_not_for_all_that_run_alone_one_after_the_other() -> None:
    now, waited = [0.0], []
    quiet = Quiet(10.0, clock=lambda: now[0])

    def join() -> bool:
        """Whether it had to wait."""
        waited.clear()
        with quiet.together(lambda: waited.append(True) or True):
            return bool(waited)

    with quiet.alone(lambda: None, lambda: False):
        now[0] = 9.0
        assert join()
        quiet.next()
        now[0] = 18.0
        assert join()
        now[0] = 19.5
        assert not join()
    assert not join()
