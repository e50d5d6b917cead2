"""Supervisor: starts worker processes, replaces those that end, hands back what a dead one held, stops them well.

It runs no user code while it supervises, so it survives what kills its children. It works as process 1 of a container: it
reaps whatever is left to it. Its children drain when it dies.
"""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from tidegate.settings import Settings
from tidegate.worker import logs
from tidegate.worker.child import Child
from tidegate.worker.crash import Death, Salvage, Suspect, overdue_items, salvage
from tidegate.worker.handback import HandBack
from tidegate.worker.held import Stage
from tidegate.worker.process import EXIT_REPLACE, HANDED_DOWN
from tidegate.worker.seam import WorkerApp
from tidegate.worker.spawner import Spawner
from tidegate.worker.tickets import TicketSender

log = logging.getLogger(__name__)

_LOOK_S = 0.25
#: After the grace period: time to hand back, then the process is ended.
_KILL_AFTER_S = 10.0
#: Python of a process that has not run for so many leases, and so long, is stuck in code that never lets go of the
#: interpreter. (Its leases are with somebody else by then.)
_STUCK_LEASES = 4.0
_STUCK_S = 30.0
_CONFIGURATION_CODES = (2, 3, 4)
#: Exit code of the executor's own watchdog, which ends a process for an item that is past its hard timeout.
EXIT_HARD_TIMEOUT = 86
_HARD_TIMEOUT = "an item ran past its hard timeout"
#: How long the executor's watchdog may take before the supervisor acts in its place.
_HARD_TIMEOUT_SLACK_S = 2.0


def supervise(
    app: WorkerApp,
    reference: str,
    settings: Settings,
    *,
    queues: Sequence[str] = (),
    ready: Callable[[], None] | None = None,
) -> int:
    """Run ``settings.processes`` worker processes for the app that ``reference`` names until told to stop; the exit code.

    SIGTERM or SIGINT: drain for ``grace_s``, hand back the rest, 0. The second one, or SIGQUIT: hand back now. Must be
    called in the main thread. ``ready`` is called once, when every process consumes. ``LedgerError`` before anything is
    started when the ledger cannot be used.
    """
    logs.configure("worker", settings.log_level)
    app.ledger().check()
    return Supervisor(app, reference, settings, queues, ready).run()


class Supervisor:
    """See :func:`supervise`."""

    def __init__(
        self,
        app: WorkerApp,
        reference: str,
        settings: Settings,
        queues: Sequence[str] = (),
        ready: Callable[[], None] | None = None,
    ) -> None:
        self._app = app
        self._reference = reference
        self._settings = settings
        self._queues = ",".join(queues)
        self._ready: Callable[[], None] | None = ready
        base = (settings.state_dir or Path(tempfile.gettempdir())).absolute()
        base.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="tidegate-worker-", dir=base))
        host = socket.gethostname()
        self._children = [
            Child(number, f"{host}-{os.getpid()}.{number}", self._folder) for number in range(settings.processes)
        ]
        self._spawner = Spawner(self._environment())
        self._signals: list[int] = []
        self._stopping_since = 0.0
        self._asked = 0
        self._exit_code = 0
        self._salvaging: list[threading.Thread] = []
        self._give_up = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> int:
        """Supervise until every process has ended."""
        self._catch_signals()
        log.info("supervising processes=%d app=%s pid=%d", len(self._children), self._reference, os.getpid())
        try:
            while True:
                self._forward_signals()
                self._reap()
                if self._stopping_since and not any(child.process for child in self._children):
                    break
                self._look()
                self._start_due()
                self._wait()
        finally:
            self._clean_up()
        log.info("all processes ended code=%d", self._exit_code)
        return self._exit_code

    # -- processes ---------------------------------------------------------------------------------------------
    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is None and not self._stopping_since and now >= child.start_due:
                self._start(child)

    def _start(self, child: Child) -> None:
        child.starts += 1
        options = {name: getattr(self._settings, name) for name in HANDED_DOWN}
        arguments = [self._reference]
        arguments += ["--name", child.name, "--queues", self._queues, "--options", json.dumps(options)]
        arguments += ["--held", str(child.held_path), "--journal", str(child.journal_path)]
        arguments += ["--outcomes", str(child.outcomes_path)]
        arguments += ["--parent", str(os.getpid()), "--restarts", str(child.starts - 1)]
        # In a session of its own: Ctrl-C reaches the supervisor alone, and it decides what to say to whom.
        child.begin(self._spawner.start(arguments))

    def _environment(self) -> dict[str, str]:
        """Where the ledger is goes by the environment: command lines can be read by everybody."""
        import_path = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        return {**os.environ, "TIDEGATE_URL": self._app.url, "PYTHONPATH": import_path}

    def _reap(self) -> None:
        """Collect every child that has ended, also those that were left to us as process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children:
                if child.pid == pid:
                    self._ended(child, status)

    def _ended(self, child: Child, status: int) -> None:
        child.look()
        header = child.header
        process = child.process
        assert process is not None
        process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not ask for it again
        if os.waitstatus_to_exitcode(status) == EXIT_HARD_TIMEOUT and not child.killed_for:
            child.killed_for = _HARD_TIMEOUT
            child.guilty = overdue_items(child.held_path, child.journal_path)
        limit = self._settings.memory_limit_bytes or 0
        death = Death(process.pid, status, header.memory if header else 0, limit, child.guilty, child.killed_for)
        found = salvage(child.held_path, child.journal_path, child.outcomes_path, child.guilty)
        if found.held:
            self._salvage(child, found, death)
        else:
            _remove(*child.files)
        code = death.exit_code
        asked_for = code in (0, EXIT_REPLACE)
        wait_s = child.end(explained=bool(found.suspects) or asked_for)
        if self._stopping_since:
            if code not in (0, EXIT_REPLACE, -signal.SIGTERM):
                log.warning("process %s name=%s", death, child.name)
            return
        if code in _CONFIGURATION_CODES and not any(one.ever_ready for one in self._children):
            log.error("process cannot start, see above name=%s", child.name)
            self._exit_code = code
            self._begin_stop()
            return
        log.log(
            logging.INFO if code == 0 else logging.WARNING,
            "process %s, replaced in_s=%.1f name=%s starts=%d leases=%d running=%d",
            *(death, wait_s, child.name, child.starts, len(found.held), found.suspects),
        )

    def _salvage(self, child: Child, found: Salvage, death: Death) -> None:
        """In a thread: the ledger may be away, and the other processes need us meanwhile."""
        files = child.files

        def work() -> None:
            try:
                task = HandBack(self._app.ledger(), found, death, self._send_tickets)
                task.run(self._settings.lease_s, self._give_up)
            except Exception:
                log.exception("leases of a dead process not handed back, they expire")
            finally:
                _remove(*files)

        thread = threading.Thread(target=work, name="tidegate-salvage", daemon=True)
        thread.start()
        self._salvaging = [one for one in self._salvaging if one.is_alive()] + [thread]

    def _send_tickets(self, queue: str, job_id: str, numbers: tuple[int, ...]) -> None:
        TicketSender(self._app.celery, queue).send(job_id, numbers)

    # -- watching ----------------------------------------------------------------------------------------------
    def _look(self) -> None:
        for child in self._children:
            if child.process is None:
                continue
            child.look()
            self._check_stuck(child)
            self._check_hard_timeouts(child)
        if self._ready is not None and all(child.ready_at for child in self._children):
            ready, self._ready = self._ready, None
            ready()

    def _check_stuck(self, child: Child) -> None:
        silent_s = time.monotonic() - child.beat_at
        started = child.header is not None and child.header.stage is not Stage.STARTING
        if started and not child.killed_for and silent_s > max(_STUCK_S, _STUCK_LEASES * self._settings.lease_s):
            self._kill(child, f"its Python did not run for {silent_s:.0f} s", None)

    def _check_hard_timeouts(self, child: Child) -> None:
        """The executor ends its process by itself; this is for a process in which even that is stuck."""
        if child.killed_for or child.header is None:
            return
        guilty = overdue_items(child.held_path, child.journal_path)
        if not guilty:
            child.overdue_since = 0.0
        elif not child.overdue_since:
            child.overdue_since = time.monotonic()
        elif time.monotonic() - child.overdue_since > _HARD_TIMEOUT_SLACK_S:
            self._kill(child, _HARD_TIMEOUT, guilty)

    def _kill(self, child: Child, reason: str, guilty: frozenset[Suspect] | None) -> None:
        log.error("process is ended reason=%r name=%s", reason, child.name)
        child.killed_for = reason
        child.guilty = guilty
        self._signal(child, signal.SIGKILL)

    # -- signals -----------------------------------------------------------------------------------------------
    def _catch_signals(self) -> None:
        def note(number: int, _: FrameType | None) -> None:
            if number != signal.SIGCHLD:
                self._signals.append(number)

        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, note)

    def _forward_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            self._asked += 1
            if not self._stopping_since:
                log.info("stopping reason=%s", signal.Signals(number).name)
                self._begin_stop(signal.SIGQUIT if number == signal.SIGQUIT else signal.SIGTERM)
            elif self._asked > 1:
                self._tell(signal.SIGQUIT)
        if self._stopping_since and time.monotonic() > self._stopping_since + self._settings.grace_s + _KILL_AFTER_S:
            self._tell(signal.SIGKILL)

    def _begin_stop(self, number: int = signal.SIGTERM) -> None:
        self._stopping_since = time.monotonic()
        self._tell(number)

    def _tell(self, number: int) -> None:
        for child in self._children:
            if child.process is not None:
                self._signal(child, number)

    def _signal(self, child: Child, number: int) -> None:
        try:
            os.kill(child.pid, number)
        except ProcessLookupError:
            log.debug("process had ended name=%s", child.name)

    def _wait(self) -> None:
        due = [child.start_due - time.monotonic() for child in self._children if child.process is None]
        if select.select([self._wake_read], [], [], max(0.0, min([_LOOK_S, *due])))[0]:
            os.read(self._wake_read, 512)

    def _clean_up(self) -> None:
        signal.set_wakeup_fd(-1)
        self._spawner.close()
        self._tell(signal.SIGKILL)  # only when we are leaving because of an error of our own
        for thread in self._salvaging:
            thread.join(2.0)
        self._give_up.set()
        for thread in self._salvaging:
            thread.join(1.0)
        shutil.rmtree(self._folder, ignore_errors=True)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
