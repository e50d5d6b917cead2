"""Processes that end with the one that started them, however that one ends: a killed test leaves no server behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

# Runs in the child before it becomes the program: prctl(PR_SET_PDEATHSIG, SIGTERM) survives exec. It is an exec'd program
# and not a preexec_fn, because those may deadlock in a process with threads. If the owner died meanwhile there is nothing
# to do.
_DIE_WITH_OWNER = (
    "import ctypes,os,sys\n"
    "ctypes.CDLL(None).prctl(1,15,0,0,0)\n"
    "if os.getppid()!=int(sys.argv[1]): os._exit(0)\n"
    "os.execv(sys.argv[2],sys.argv[2:])\n"
)


def start_owned(
    command: Sequence[str], start: Callable[[Sequence[str]], subprocess.Popen[Any]]
) -> subprocess.Popen[Any]:
    """``start(command)``, made so that the process gets SIGTERM when this one dies. ``command[0]`` is a path.

    Where the kernel has no such signal (other than Linux) it is started as it is.
    """
    if sys.platform != "linux":
        return start(command)
    command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_OWNER, str(os.getpid()), *command]
    # The kernel sends the signal when the *thread* that forked ends. So a thread of its own forks, and stays.
    started: list[subprocess.Popen[Any] | BaseException] = []
    ready = threading.Event()

    def keep() -> None:
        try:
            started.append(start(command))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            started.append(error)
        ready.set()
        if isinstance(started[0], subprocess.Popen):
            started[0].wait()

    threading.Thread(target=keep, name="tidegate-owner", daemon=True).start()
    ready.wait()
    if isinstance(started[0], BaseException):
        raise started[0]
    return started[0]
