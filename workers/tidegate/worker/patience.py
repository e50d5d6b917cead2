"""Patience: asking a ledger that may be away for a while. Waits with backoff, says so once, and uses no CPU meanwhile."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tidegate.errors import LedgerDenied, LedgerFull, LedgerUnavailable
from tidegate.worker.gate import Gate

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 1.0
_REMIND_S = 10.0

#: What passes by itself, or after an operator has acted.
PASSING = (LedgerUnavailable, LedgerDenied, LedgerFull)


class Patience:
    """Shared by the threads of a process, so that an outage is one line in the log and not one for each thread."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._lock = threading.Lock()
        self._away_since = 0.0
        self._reminded = 0.0

    @property
    def is_away(self) -> bool:
        """Whether the last thing that was heard of the ledger is that it does not answer."""
        return bool(self._away_since)

    def ask(self, call: Callable[[], T], *, give_up: Callable[[], bool]) -> T:
        """The answer. Repeats the same call until there is one; raises the last error once ``give_up()`` is true."""
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                answer = call()
            except PASSING as error:
                self.missed(error)
                if give_up():
                    raise
                self._gate.pause(wait_s * random.uniform(0.5, 1.0))
                wait_s = min(_LONGEST_WAIT_S, wait_s * 2)
            else:
                if self._away_since:
                    self.heard()
                return answer

    def missed(self, error: Exception) -> None:
        """It did not answer."""
        now = time.monotonic()
        with self._lock:
            if not self._away_since:
                self._away_since = self._reminded = now
                log.warning("ledger does not answer, waiting for it reason=%s", error)
            elif now - self._reminded >= _REMIND_S:
                self._reminded = now
                log.warning("ledger does not answer yet after_s=%.0f reason=%s", now - self._away_since, error)

    def heard(self) -> None:
        """It answered."""
        with self._lock:
            if self._away_since:
                log.warning("ledger answers again after_s=%.1f", time.monotonic() - self._away_since)
                self._away_since = 0.0
