"""Template: a process that has everything imported and nothing begun. Worker processes are forked from it.

Starting Python and importing Celery takes most of a second; a fork of a process that has done so takes milliseconds, so a
process that died is replaced at once, and what they all have in memory they share. The template runs no user code, opens no
connection and starts no thread: a fork of it is as good as new. It is asked over a socket by the supervisor's
:class:`~tidegate.worker.spawner.Spawner`, and ends when the supervisor closes it.

A worker process is a child of the supervisor and not of the template: the template forks a process that forks it and ends,
and the supervisor has asked the kernel to be given what is left behind (``PR_SET_CHILD_SUBREAPER``, Linux 3.4).
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

from setproctitle import setproctitle

from tidegate.worker import process

#: What a worker process would import by and by.
_MODULES = (
    "tidegate.worker.assembly",
    "tidegate.ledger.redis",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.routes",
    "celery.backends.base",
    "celery.events.receiver",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.strategy",
)
MAX_REQUEST_BYTES = 1 << 16
#: A process that the kernel does not give to the supervisor in this time has none, and ends.
_ADOPTION_S = 5.0


def serve(control: socket.socket, supervisor: int) -> None:
    """Fork a worker process for every request, a JSON list of its arguments; answer its process id, 0 for none."""
    while request := control.recv(MAX_REQUEST_BYTES):
        pid = _fork_for_another(control, json.loads(request), supervisor)
        control.send(str(pid).encode())


def _fork_for_another(control: socket.socket, arguments: Sequence[str], supervisor: int) -> int:
    """Fork twice, so that the worker process is left to the supervisor; its process id."""
    read, write = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            os.close(read)
            pid = os.fork()
            if pid == 0:
                os.close(write)
                control.close()
                _become_worker(arguments, supervisor)
            os.write(write, str(pid).encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        return int(os.read(read, 32) or 0)
    finally:
        os.close(read)
        os.waitpid(between, 0)


def _become_worker(arguments: Sequence[str], supervisor: int) -> None:
    """Live as ``python -m tidegate.worker.process`` would. Does not return."""
    os.setsid()
    deadline = time.monotonic() + _ADOPTION_S
    while os.getppid() != supervisor and time.monotonic() < deadline:
        time.sleep(0.001)
    command = [sys.executable, "-m", process.__name__, *arguments]
    sys.argv, sys.orig_argv = [str(process.__file__), *arguments], command
    setproctitle(" ".join(command))
    process.live_and_exit(arguments)


def main(arguments: Sequence[str]) -> None:
    """``arguments``: the number of the socket's descriptor, and the supervisor's process id."""
    control = socket.socket(fileno=int(arguments[0]))
    supervisor = int(arguments[1])
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # a process of its own session, and only its supervisor ends it
    for name in _MODULES:
        importlib.import_module(name)
    if threading.active_count() > 1:
        logging.warning("an imported module started a thread: processes are not forked from a template")
        return
    gc.collect()
    gc.freeze()
    try:
        serve(control, supervisor)
    except OSError:
        logging.debug("the supervisor is gone")


if __name__ == "__main__":
    main(sys.argv[1:])
