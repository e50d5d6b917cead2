"""Ctrl-C at any moment, but never between starting a process and noting that it has to be ended."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While it is open, SIGINT, SIGTERM and SIGHUP raise ``KeyboardInterrupt`` in the main thread; inside ``held()`` they
    wait until its end. After ``close_ears()`` they change nothing any more: what is being tidied up is tidied up."""

    def __init__(self) -> None:
        self.caught = False
        self._holding = 0
        self._deaf = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A stretch that must not be cut in two."""
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
        if self.caught and not self._holding and not self._deaf:
            raise KeyboardInterrupt

    def close_ears(self) -> None:
        """From now on signals are noted only."""
        self._deaf = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.caught = True
        if not self._holding and not self._deaf:
            raise KeyboardInterrupt
