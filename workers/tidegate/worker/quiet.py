"""Quiet: lets a batch run alone in its process, when one of its items may end the process.

Nobody waits for quiet for ever: an item may take hours, wait for a limit, or wait for an item that waits for quiet here. What
holds others up for longer than ``patience_s`` is run beside; if the process dies then, handback.py still tells them apart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_S = 0.05


class Quiet:
    """Many runs together, or one alone. Any thread may use it."""

    def __init__(self, patience_s: float = 15.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._changed = threading.Condition()
        self._together = 0
        self._waiting = 0
        self._alone = 0
        #: Since when others are held up by the same: one item that runs alone, or the wait until it may.
        self._since = 0.0

    @contextmanager
    def together(self, give_up: Callable[[], bool]) -> Iterator[None]:
        """Run with others, once nobody runs alone or waits for that. ``give_up()``: go on all the same."""
        with self._changed:
            while (self._alone or self._waiting) and not self._is_long() and not give_up():
                self._changed.wait(_LOOK_S)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, hush: Callable[[], None], give_up: Callable[[], bool]) -> Iterator[bool]:
        """Run when nobody else does. ``hush()`` is called while others run, to make them end soon. Yields False when
        ``give_up()`` came first: then do not run."""
        granted = False
        with self._changed:
            self._waiting += 1
            if self._waiting == 1 and not self._alone:
                self._since = self._clock()
        try:
            while not granted and not give_up():
                with self._changed:
                    held_up = self._alone > 0
                    granted = not (held_up or self._together) or self._is_long()
                    if granted:
                        self._alone += 1
                        self._since = self._clock()
                        break
                if not held_up:
                    hush()
                with self._changed:
                    self._changed.wait(_LOOK_S)
            yield granted
        finally:
            with self._changed:
                self._waiting -= 1
                if granted:
                    self._alone -= 1
                    self._since = self._clock()
                self._changed.notify_all()

    def next(self) -> None:
        """Who runs alone goes on to its next item."""
        with self._changed:
            self._since = self._clock()

    def _is_long(self) -> bool:
        return self._clock() - self._since > self._patience_s
