"""Quiet: lets a batch run alone in its process, when one of its items may end the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_S = 0.05


class Quiet:
    """Many runs together, or one alone. Any thread may use it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = 0
        self._waiting = 0
        self._alone = False

    @contextmanager
    def together(self, give_up: Callable[[], bool]) -> Iterator[None]:
        """Run with others, once nobody runs alone or waits for that. ``give_up()``: go on all the same."""
        with self._changed:
            while (self._alone or self._waiting) and not give_up():
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
        with self._changed:
            self._waiting += 1
        granted = False
        try:
            while not granted and not give_up():
                with self._changed:
                    granted = not self._alone and self._together == 0
                    if granted:
                        self._alone = True
                    elif self._alone:
                        self._changed.wait(_LOOK_S)
                        continue
                if not granted:
                    hush()
                    with self._changed:
                        self._changed.wait(_LOOK_S)
            yield granted
        finally:
            with self._changed:
                self._waiting -= 1
                if granted:
                    self._alone = False
                self._changed.notify_all()
