"""The Celery app that carries tickets, and how a worker process configures one (ours or the user's) to read them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery import Celery, Task

from tidegate.settings import Settings
from tidegate.worker import transport
from tidegate.worker.tickets import TICKET_TASK, BadTicket, parse_ticket, ticket_queue

log = logging.getLogger(__name__)

_HANDLER = "_tidegate_ticket_handler"
_OWN = "_tidegate_own"


def build(settings: Settings, broker_url: str) -> Celery:
    """A Celery app that knows one task, the ticket. It is not made current, and touches no logging and no signals.

    >>> app = build(Settings(), "redis://localhost:6379/0")
    >>> "tidegate.ticket" in app.tasks, app.conf.accept_content
    (True, ['json'])
    """
    app = Celery("tidegate", broker=kombu_url(broker_url), set_as_current=False, fixups=[])
    setattr(app, _OWN, True)
    options: dict[str, Any] = {"socket_keepalive": True, "health_check_interval": 10}
    if broker_url.startswith("sentinel://"):
        options["master_name"] = urlsplit(broker_url).path.strip("/").partition("/")[0]
    app.conf.update(
        task_default_queue=settings.queue,
        task_default_exchange=settings.queue,
        task_default_routing_key=settings.queue,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        broker_transport_options=options,
        broker_connection_timeout=5,
    )
    register_ticket_task(app)
    return app


def register_ticket_task(app: Celery) -> None:
    """Add the ticket task to ``app``; the worker process says later what it does."""

    def ticket(task: Task, *arguments: Any, **_: Any) -> None:
        handler: Callable[[str, int, str], None] | None = getattr(app, _HANDLER, None)
        try:
            job_id, number = parse_ticket(arguments)
        except BadTicket as error:
            transport.refusals.note(str(error), repr(arguments)[:512].encode())
            return
        if handler is None:
            log.error("ticket ignored: this process was not started by `tidegate worker` job=%s", job_id)
            return
        queue = (task.request.delivery_info or {}).get("routing_key") or app.conf.task_default_queue
        handler(job_id, number, queue)

    # The ticket is acknowledged before it is run: it is disposable, and the ledger remembers what matters.
    # Not shared: Celery would add it to every app of the process otherwise.
    app.task(
        ticket,
        name=TICKET_TASK,
        bind=True,
        acks_late=False,
        ignore_result=True,
        max_retries=0,
        typing=False,
        shared=False,
    )


def prepare_worker(app: Celery, queues: Iterable[str], handler: Callable[[str, int, str], None]) -> None:
    """Configure ``app`` in a worker process: read tickets of ``queues`` only, and give each to ``handler``."""
    if TICKET_TASK not in app.tasks:
        register_ticket_task(app)
    setattr(app, _HANDLER, handler)
    if not getattr(app, _OWN, False):
        app.set_default()  # as Celery's own worker does: the user's tasks find their app in any thread
    read_url, read_transport = _guarded(app.conf.broker_read_url or app.conf.broker_url or "")
    options = dict(app.conf.broker_transport_options or {})
    # Emulated acknowledgements cost three more commands a ticket and protect what need not be protected.
    options["ack_emulation"] = False
    app.conf.update(
        broker_read_url=read_url,
        broker_transport=read_transport,
        broker_transport_options=options,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        accept_content=["json"],
        task_queues=[ticket_queue(name) for name in sorted(set(queues))],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_prefetch_count_reduction=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_state_db=None,
        beat_schedule={},
    )


def kombu_url(url: str) -> str:
    """The broker address in kombu's spelling: it writes unix sockets and Valkey in its own way.

    >>> kombu_url("unix:///run/valkey.sock?db=2")
    'redis+socket:///run/valkey.sock?virtual_host=2'
    >>> kombu_url("sentinel://:secret@one:26379,two:26379/main/3")   # the service's name goes by a transport option
    'sentinel://:secret@one:26379/3;sentinel://:secret@two:26379/3'
    """
    if url.startswith("sentinel://"):
        parts = urlsplit(url)
        login, at, hosts = parts.netloc.rpartition("@")
        database = parts.path.strip("/").partition("/")[2] or "0"
        return ";".join(f"sentinel://{login}{at}{host}/{database}" for host in hosts.split(","))
    if url.startswith("unix://"):
        parts = urlsplit(url)
        database = (parse_qs(parts.query).get("db") or ["0"])[0]
        userinfo = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return f"redis+socket://{userinfo}{parts.path}?virtual_host={database}"
    for own, kombus in (("valkey://", "redis://"), ("valkeys://", "rediss://")):
        if url.startswith(own):
            return kombus + url[len(own) :]
    return url


def _guarded(url: Any) -> tuple[Any, Any]:
    """The URL and transport that read from a Redis queue with the guard; any other broker is left as it is."""
    first = url if isinstance(url, str) else ""
    if first.startswith("redis+socket://"):
        return f"{transport.SOCKET_ALIAS}+{first.removeprefix('redis+')}", None
    if first.startswith(("redis://", "rediss://")):
        return url, transport.TicketTransport
    if first.startswith("sentinel://"):
        return url, transport.TicketSentinelTransport
    return url, None
