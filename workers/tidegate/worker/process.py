"""One worker process: ``python -m tidegate.worker.process MODULE:NAME …``, started and watched by the supervisor.

It leads one short life: start, serve tickets until told to stop or to be replaced, drain, hand back, exit. The main thread
does nothing but wait for signals, so that no user code and no server can keep it from stopping.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import json
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tidegate.errors import TidegateError
from tidegate.executor.journal import name_culprits
from tidegate.settings import Settings
from tidegate.worker import logs
from tidegate.worker.assembly import Assembly
from tidegate.worker.seam import load_app

log = logging.getLogger(__name__)

#: Exit code of a process that wants to be replaced: out of memory soon, or doing nothing.
EXIT_REPLACE = 75
_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.05

#: Settings that the supervisor's command line may change, handed down as they are. None of them is a secret.
HANDED_DOWN = (
    "processes",
    "slots",
    "lease_s",
    "slice_s",
    "partial_commit_s",
    "sweep_s",
    "grace_s",
    "watchdog_s",
    "memory_soft",
    "memory_hard",
    "memory_limit_bytes",
    "telemetry_s",
    "telemetry_keep",
    "max_item_bytes",
    "max_batch_bytes",
    "log_level",
)


class Process:
    """The life of a process. ``run`` returns its exit code."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._signals: list[int] = []
        self._replace_reason = ""
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> int:
        """Start, serve, stop."""
        self._catch_signals()
        _die_with(self._arguments.parent)
        logs.configure(f"worker[{self._arguments.name}]", "INFO")
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        try:
            app = load_app(self._arguments.app)
            settings = handed_down(app.settings, self._arguments.options)
            logging.getLogger().setLevel(settings.log_level)
            if self._signals:
                return 0
            parts = Assembly(app, settings, self._arguments, replace=self._replace)
            name_culprits()
        except TidegateError as error:
            log.error("cannot start: %s", error)
            return error.exit_code
        parts.start()
        self._serve(parts)
        return self._stop(parts, settings.grace_s)

    def _serve(self, parts: Assembly) -> None:
        while not self._signals and not self._replace_reason:
            self._wait(1.0)
            if not parts.consumer.is_alive:
                self._replace_reason = "Celery's worker ended"
                log.error("Celery's worker ended, process is replaced")

    def _stop(self, parts: Assembly, grace_s: float) -> int:
        """Drain for the grace period, or until told to hurry; then hand back what is left."""
        began = time.monotonic()
        log.info("draining reason=%s", self._replace_reason or signal.Signals(self._signals[0]).name)
        parts.drain()
        while parts.busy and not self._hurried() and time.monotonic() - began < grace_s:
            self._wait(_LOOK_S)
        left = parts.hand_back()
        parts.close()
        log.info("stopped after_s=%.1f handed_back=%d", time.monotonic() - began, left)
        return EXIT_REPLACE if self._replace_reason and not self._signals else 0

    def _hurried(self) -> bool:
        return len(self._signals) > 1 or signal.SIGQUIT in self._signals

    def _replace(self, reason: str) -> None:
        """Called by any thread: this process should end and be replaced."""
        self._replace_reason = reason
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except OSError:
            log.debug("the main thread could not be woken")

    def _wait(self, seconds: float) -> None:
        if select.select([self._wake_read], [], [], seconds)[0]:
            os.read(self._wake_read, 512)

    def _catch_signals(self) -> None:
        # The handlers only take notes: a lock taken here could be held by the code that was interrupted.
        def note(number: int, _: FrameType | None) -> None:
            self._signals.append(number)

        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})


def handed_down(settings: Settings, options: str) -> Settings:
    """The app's settings with what the supervisor decided."""
    changes = json.loads(options) if options else {}
    return settings.model_copy(update={key: value for key, value in changes.items() if key in HANDED_DOWN})


def _die_with(parent: int) -> None:
    """Drain when the supervisor dies, however it dies."""
    if not parent:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def main(arguments: Sequence[str]) -> int:
    """Parse the command line that the supervisor wrote, and live."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.worker.process")
    parser.add_argument("app")
    parser.add_argument("--name", default=f"{socket.gethostname()}-0")
    parser.add_argument("--queues", default="", help="comma separated; none: those of the app's tasks")
    parser.add_argument("--options", default="", help="settings as JSON")
    parser.add_argument("--held", type=Path, required=True, help="file of held leases")
    parser.add_argument("--journal", type=Path, required=True, help="crash journal")
    parser.add_argument("--outcomes", type=Path, required=True, help="outcome log")
    parser.add_argument("--parent", type=int, default=0, help="process id of the supervisor")
    parser.add_argument("--restarts", type=int, default=0)
    return Process(parser.parse_args(arguments)).run()


def live_and_exit(arguments: Sequence[str]) -> NoReturn:
    """``main``, and the end of the process."""
    code = 1
    try:
        code = main(arguments)
    except SystemExit as error:  # argparse
        code = error.code if isinstance(error.code, int) else 2
    except BaseException:  # noqa: BLE001 - the process ends here
        traceback.print_exc()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # User code that is stuck in a thread must not keep the process from ending.
    os._exit(code)


if __name__ == "__main__":
    live_and_exit(sys.argv[1:])
