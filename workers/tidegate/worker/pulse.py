"""Two small clocks of a process: the pulse (local checks, no input or output) and the flusher (commits in parts)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from tidegate.worker.commits import Committer
from tidegate.worker.leases import LeaseKeeper
from tidegate.worker.patience import PASSING

log = logging.getLogger(__name__)


class Ticker:
    """A daemon thread that calls ``turn`` every ``seconds``, whatever ``turn`` raises."""

    def __init__(self, name: str, seconds: float, turn: Callable[[], None]) -> None:
        self._seconds = seconds
        self._turn = turn
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"tidegate-{name}", daemon=True)

    def start(self) -> None:
        """Begin; the first turn is at once."""
        self._thread.start()

    def stop(self, timeout_s: float = 0.0) -> None:
        """No more turns; wait up to ``timeout_s`` for the one under way."""
        self._stop.set()
        if timeout_s and self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except Exception:
                log.exception("turn failed thread=%s", self._thread.name)
            if self._stop.wait(self._seconds):
                return


def pulse(checks: Sequence[Callable[[], None]]) -> Ticker:
    """Checks that wait for nobody, four times a second."""

    def turn() -> None:
        for check in checks:
            check()

    return Ticker("pulse", 0.25, turn)


def flusher(keeper: LeaseKeeper, committer: Committer, partial_s: float) -> Ticker:
    """Commits finished items of every batch that has been running for ``partial_s`` since its last commit."""
    partial_ns = round(partial_s * 1e9)

    def turn() -> None:
        for work in keeper.works():
            if time.monotonic_ns() - work.flushed_ns >= partial_ns:
                try:
                    committer.part(work)
                except PASSING as error:
                    log.debug("part not committed job=%s reason=%s", work.lease.job_id, error)

    return Ticker("flusher", partial_s / 2, turn)
