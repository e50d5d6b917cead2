"""Spawner: starts worker processes for the supervisor, from a template where that works, as new programs where not."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidegate.worker.template import MAX_REQUEST_BYTES

log = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
#: The template answers in milliseconds once it has imported everything, which takes about a second.
_PATIENCE_S = 15.0
#: After so many failures in a row templates are given up.
_TRIES = 3


class Started(Protocol):
    """A process that was started; ``returncode`` is set by whoever waits for it."""

    pid: int
    returncode: int | None


@dataclass(slots=True)
class Forked:
    """A worker process that the template made."""

    pid: int
    returncode: int | None = None


class Spawner:
    """Used by the supervisor's main thread only. ``environment``: that of all processes; read when the first one starts."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._template: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._failures = 0 if _adopt_what_is_left() else _TRIES

    def start(self, arguments: Sequence[str]) -> Started:
        """Start ``python -m tidegate.worker.process`` with these arguments, in a session of its own."""
        while self._failures < _TRIES:
            try:
                forked = Forked(self._ask(arguments))
            except (OSError, ValueError) as error:
                self._failures += 1
                log.warning("no process from the template, it is started anew reason=%s", error)
                self.close()
            else:
                self._failures = 0
                return forked
        command = [sys.executable, "-m", "tidegate.worker.process", *arguments]
        return subprocess.Popen(command, env=self._environment, start_new_session=True)

    def close(self) -> None:
        """End the template. The processes that came from it live on."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._template is not None:
            with contextlib.suppress(ProcessLookupError):
                self._template.kill()
            self._template.wait()
            self._template = None

    def _ask(self, arguments: Sequence[str]) -> int:
        if self._control is None:
            self._begin()
        request = json.dumps(list(arguments)).encode()
        if len(request) > MAX_REQUEST_BYTES:
            raise ValueError("the command line is too long")
        assert self._control is not None
        self._control.send(request)
        pid = int(self._control.recv(32) or 0)
        if not pid:
            raise ValueError("the template ended")
        return pid

    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.settimeout(_PATIENCE_S)
            command = [sys.executable, "-m", "tidegate.worker.template", str(theirs.fileno()), str(os.getpid())]
            self._template = subprocess.Popen(
                command, env=self._environment, pass_fds=[theirs.fileno()], start_new_session=True
            )
            self._control = ours


def _adopt_what_is_left() -> bool:
    """Become the parent of descendants whose parent has ended; whether this system can do it."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
