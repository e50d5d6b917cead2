"""Gate: whether this process takes work. It closes under memory pressure and, for good, when the process is to stop."""

from __future__ import annotations

import threading


class Gate:
    """Three states, changed by any thread: open, held (memory pressure), draining. ``hurry`` ends a drain at once.

    >>> gate = Gate(); gate.hold(True); gate.is_open
    False
    >>> gate.hold(False); gate.is_open
    True
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held = False
        self.draining = False
        self.hurry = False
        #: Read without the lock on every batch.
        self.is_open = True

    def hold(self, held: bool) -> None:
        """Stop claiming, or go on."""
        with self._changed:
            self._held = held
            self._update()

    def drain(self, *, hurry: bool = False) -> None:
        """Claim nothing more. ``hurry``: and wait for nothing that runs."""
        with self._changed:
            self.draining = True
            self.hurry = self.hurry or hurry
            self._update()

    def wait_open(self) -> bool:
        """Wait while held. False: the process is to stop."""
        with self._changed:
            while self._held and not self.draining:
                self._changed.wait()
            return not self.draining

    def pause(self, seconds: float) -> None:
        """Wait that long, less when the process begins to stop."""
        with self._changed:
            if not self.draining:
                self._changed.wait_for(lambda: self.draining, seconds)
                return
            self._changed.wait_for(lambda: self.hurry, seconds)

    def _update(self) -> None:
        self.is_open = not (self._held or self.draining)
        self._changed.notify_all()
