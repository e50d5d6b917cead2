"""Assembly: the parts of one worker process, put together, started and stopped in order."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidegate.errors import LedgerError
from tidegate.executor.host import Host
from tidegate.executor.outlog import OutcomeLog
from tidegate.ledger.connection import connect
from tidegate.ledger.port import Ledger
from tidegate.limits import LimitAgent
from tidegate.settings import Settings
from tidegate.telemetry.quarantine import Quarantine
from tidegate.telemetry.stream import TelemetryWriter
from tidegate.worker import celery_app, transport
from tidegate.worker.batch import Bench, TicketRunner
from tidegate.worker.commits import Committer
from tidegate.worker.consumer import TicketConsumer
from tidegate.worker.facts import JobFacts
from tidegate.worker.gate import Gate
from tidegate.worker.held import HeldFile, Stage
from tidegate.worker.lanes import Lanes
from tidegate.worker.leases import LeaseKeeper
from tidegate.worker.lingering import Lingering
from tidegate.worker.memory import MemoryGuard, memory_limit
from tidegate.worker.patience import Patience
from tidegate.worker.publisher import TelemetryPublisher
from tidegate.worker.pulse import Ticker, flusher, pulse
from tidegate.worker.quiet import Quiet
from tidegate.worker.recorder import Recorder
from tidegate.worker.seam import WorkerApp
from tidegate.worker.settle import Packer
from tidegate.worker.signatures import Signatures
from tidegate.worker.slots import Slots
from tidegate.worker.sweeper import Facts, Sweeper
from tidegate.worker.tickets import TicketSender
from tidegate.worker.watchdog import Watchdog
from tidegate.worker.work import BatchWork, crash_counts

if TYPE_CHECKING:
    from tidegate.executor.host import Run

log = logging.getLogger(__name__)


class Assembly:
    """``replace``: called with a reason, from any thread, when the process should end and be replaced."""

    def __init__(
        self, app: WorkerApp, settings: Settings, arguments: Namespace, *, replace: Callable[[str], None]
    ) -> None:
        self.settings = settings
        self.name: str = arguments.name
        # Unique per process start: leases, requests and telemetry are told apart by it.
        self.worker = f"{arguments.name}-{os.getpid()}-{secrets.token_hex(4)}".replace(":", "_").replace("|", "_")
        self._restarts: int = arguments.restarts
        self._app = app
        self.queues = _queues(app, arguments.queues)
        self.ledger: Ledger = app.ledger()
        self.gate = Gate()
        self.patience = Patience(self.gate)
        self.slots = Slots(self.worker, settings.slots)
        self.held = HeldFile(arguments.held, settings.slots)
        self.keeper = LeaseKeeper(self.ledger, self.held, self.patience, settings.lease_s)
        self._side_client = connect(app.url, retries=0, reply_timeout_s=2.0, name="tidegate-side")
        self.agent = LimitAgent(self._side_client, {}, self.worker)
        recorder = Recorder(self.keeper, settings.max_item_bytes)
        outcomes = OutcomeLog(path=arguments.outcomes, encode=recorder.encode, describe=recorder.describe)
        self.host = Host(journal=arguments.journal, outcomes=outcomes, name=self.name)
        self.lanes = Lanes(self.host, app.tasks, self.agent)
        self._senders: dict[str, TicketSender] = {}
        self.packer = Packer(settings.max_item_bytes, settings.max_batch_bytes, JobFacts(self.ledger))
        self.committer = Committer(
            ledger=self.ledger,
            packer=self.packer,
            patience=self.patience,
            gate=self.gate,
            lease_ms=round(settings.lease_s * 1000),
            send_tickets=self.send_tickets,
            asking=self.held.asking,
        )
        self.runner = TicketRunner(self._bench())
        self.memory = MemoryGuard(
            gate=self.gate,
            limit=memory_limit(settings.memory_limit_bytes, settings.processes),
            soft=settings.memory_soft,
            hard=settings.memory_hard,
            busy=lambda: bool(self.keeper.works()),
            replace=replace,
        )
        self.publisher = TelemetryPublisher(
            writer=TelemetryWriter(self._side_client, settings.telemetry_keep),
            worker=self.worker,
            queues=self.queues,
            slots=self.slots,
            lanes=self.lanes.made(),
            memory=self.memory,
            snapshot=self.host.snapshot,
            refused=lambda: transport.refusals.count,
        )
        self.sweeper = Sweeper(
            ledger=self.ledger,
            worker=self.worker,
            slots=settings.slots,
            sweep_s=settings.sweep_s,
            send_tickets=self.send_tickets,
            facts=self.facts,
            serve_here=self._serve_here,
            patience=self.patience,
        )
        quarantine = Quarantine(self._side_client)
        transport.refusals.keep = lambda reason, sample: quarantine.note(self.worker, reason, sample)
        celery_app.prepare_worker(app.celery, self.queues, self.runner.serve)
        self.consumer = TicketConsumer(app.celery, f"{self.name}@{socket.gethostname()}", settings.slots, self._ready)
        self.watchdog = Watchdog(
            ledger=self.ledger,
            seconds=settings.watchdog_s,
            queues=self.queues,
            tasks=self.lanes,
            could_claim=lambda: self.gate.is_open and self.slots.free > 0 and not self.patience.is_away,
            last_claim_ns=lambda: self.runner.last_claim_ns,
            reconnect=self.consumer.reconnect,
            replace=replace,
        )
        self.lingering = Lingering(self.keeper.works)
        self._tickers = self._make_tickers()

    def start(self) -> None:
        """Start every thread; consume last."""
        self.agent.start()
        self.keeper.start()
        for ticker in self._tickers:
            ticker.start()
        self.consumer.start()

    @property
    def busy(self) -> bool:
        """Whether batches are at work."""
        return self.slots.free < len(self.slots.all)

    def drain(self) -> None:
        """Claim nothing more, start no more items; what runs may end."""
        self.gate.drain()
        self.held.stage(Stage.DRAINING)
        self.consumer.stop()
        for work in self.keeper.works():
            work.stop_starting()

    def hand_back(self) -> int:
        """Commit what is done and hand back the rest of every batch that is still at work; how many there were."""
        works = self.keeper.works()
        if works:
            self.gate.drain(hurry=True)
            threads = [threading.Thread(target=self.committer.hand_back, args=(work,), daemon=True) for work in works]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(5.0)
            for work in works:
                if work.closed:
                    self.keeper.drop(work)
                    self.runner.put_back(work.lease.job_id, work.ticket, work.queue)
        return len(works)

    def close(self) -> None:
        """Say the last words and leave. What cannot be said to a server that is away is left unsaid."""
        self.gate.drain(hurry=True)
        for ticker in self._tickers:
            ticker.stop(1.0)
        self.keeper.stop()
        self.consumer.join(2.0)
        self.agent.stop(1.0)
        if not self.patience.is_away:
            self.publisher.publish(stopping=True)
            try:
                self.ledger.leave(self.worker)
            except LedgerError as error:
                log.debug("not deregistered reason=%s", error)

    def send_tickets(self, queue: str, job_id: str, numbers: tuple[int, ...]) -> int:
        """Put tickets into a queue, one that this process reads or any other; how many went out."""
        sender = self._senders.get(queue)
        if sender is None:
            sender = self._senders[queue] = TicketSender(self._app.celery, queue)
        return sender.send(job_id, numbers)

    def _serve_here(self, queue: str, job_id: str, numbers: tuple[int, ...]) -> None:
        """Tickets that no broker takes: what was accepted drains all the same, in the slots that this process has free."""
        if queue not in self.queues or not self.gate.is_open:
            return
        for number in numbers[: self.slots.free]:
            threading.Thread(target=self.runner.serve, args=(job_id, number, queue), daemon=True).start()

    def facts(self) -> Facts:
        """What the ledger's registry shows of this process."""
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "name": self.name,
            "queues": ",".join(self.queues),
            "memory_bytes": self.memory.bytes,
            "memory_limit": self.memory.limit,
            "restarts": self._restarts,
            "stage": "draining" if self.gate.draining else "ready" if self.gate.is_open else "held",
        }

    def _bench(self) -> Bench:
        settings = self.settings
        return Bench(
            ledger=self.ledger,
            lanes=self.lanes,
            slots=self.slots,
            keeper=self.keeper,
            committer=self.committer,
            patience=self.patience,
            gate=self.gate,
            slice_s=settings.slice_s,
            lease_s=settings.lease_s,
            send_tickets=self.send_tickets,
            signatures=Signatures(self._app.keyring, self.ledger, self.patience, transport.refusals.note),
            begin=self._begin,
            quiet=Quiet(settings.lease_s),
        )

    def _begin(self, work: BatchWork, items: list[object], shape: int) -> Run:
        lease = work.lease
        run = work.lane.lane.start(
            items,
            shape=shape,
            tag=work.tag,
            first_index=lease.first_index,
            skip=work.skip,
            attempts=work.attempts or lease.attempts,
            crashes=crash_counts(lease.crashes),
            job_id=lease.job_id,
        )
        if work.lane.limits:
            self.agent.wake()
        return run

    def _make_tickers(self) -> list[Ticker]:
        settings = self.settings
        return [
            pulse(
                (
                    self.memory.check,
                    self.keeper.check_deadlines,
                    self.lingering.look,
                    lambda: self.held.beat(self.memory.bytes),
                )
            ),
            flusher(self.keeper, self.committer, settings.partial_commit_s),
            Ticker("sweeper", settings.sweep_s, self.sweeper.turn),
            Ticker("telemetry", settings.telemetry_s, self.publisher.publish),
            Ticker("watchdog", min(1.0, settings.watchdog_s / 4), self.watchdog.check),
        ]

    def _ready(self) -> None:
        self.held.stage(Stage.READY)
        log.info(
            "ready worker=%s slots=%d queues=%s tasks=%d",
            self.worker,
            len(self.slots.all),
            ",".join(self.queues),
            len(self.lanes),
        )


def _queues(app: WorkerApp, chosen: str) -> tuple[str, ...]:
    if chosen:
        return tuple(sorted({name.strip() for name in chosen.split(",") if name.strip()}))
    return tuple(sorted({app.settings.queue, *(task.queue for task in app.tasks.values())}))
