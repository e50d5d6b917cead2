"""Tickets: Celery messages that say "job J has work", and nothing else.

A ticket has no authority, so losing or repeating one costs a little time and changes no outcome. What arrives from the
queue is not trusted: :func:`parse_ticket` accepts exactly ``[job_id, number]``, and :func:`canonical_message` builds a
fresh Celery message from these two values, so that nothing else that a stranger put into the queue reaches Celery
(compression bombs, pickles, times to wait, chains of other tasks, other tasks' names).
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.exceptions import KombuError
from kombu.messaging import Producer
from kombu.pools import producers

log = logging.getLogger(__name__)

TICKET_TASK = "tidegate.ticket"

#: A ticket is about 700 bytes on the queue; anything much larger is something else.
MAX_MESSAGE_BYTES = 16 << 10
_MAX_NUMBER = 2**53
_JOB_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_EMBED: dict[str, None] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class BadTicket(ValueError):
    """A message in a ticket queue that is not a ticket; the text says why."""


def parse_ticket(arguments: object) -> tuple[str, int]:
    """Job id and number of a ticket, or :class:`BadTicket`.

    >>> parse_ticket(["0123456789abcdefghjkmnpqrs", 7])
    ('0123456789abcdefghjkmnpqrs', 7)
    >>> parse_ticket(["../../etc/passwd", 7])
    Traceback (most recent call last):
    ...
    tidegate.worker.tickets.BadTicket: the job id is not one
    """
    if not isinstance(arguments, list | tuple) or len(arguments) != 2:
        raise BadTicket("the arguments are not [job id, number]")
    job_id, number = arguments
    if not isinstance(job_id, str) or not _JOB_ID.match(job_id):
        raise BadTicket("the job id is not one")
    if type(number) is not int or not 0 <= number < _MAX_NUMBER:
        raise BadTicket("the ticket number is not one")
    return job_id, number


def canonical_message(raw: bytes | str, queue: str) -> dict[str, Any]:
    """The kombu message of the ticket in ``raw`` (an element of the Redis list ``queue``), rebuilt from its two values."""
    if len(raw) > MAX_MESSAGE_BYTES:
        raise BadTicket(f"the message has {len(raw):,} bytes")
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadTicket("the message is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("headers"), dict):
        raise BadTicket("the message is not a Celery message")
    task = message["headers"].get("task")
    if task != TICKET_TASK:
        raise BadTicket(f"the message is for task {str(task)[:100]!r}")
    if message.get("content-type") != "application/json" or message["headers"].get("compression"):
        raise BadTicket("the content is not plain JSON")
    job_id, number = parse_ticket(_arguments(message))
    body = json.dumps([[job_id, number], {}, _EMBED]).encode()
    return {
        "body": base64.b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": ticket_headers(),
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
        },
    }


def _arguments(message: dict[str, Any]) -> object:
    properties = message.get("properties")
    encoding = properties.get("body_encoding") if isinstance(properties, dict) else None
    body = message.get("body")
    if not isinstance(body, str):
        raise BadTicket("the message has no body")
    try:
        data = base64.b64decode(body, validate=True) if encoding == "base64" else body.encode()
        document = json.loads(data)
    except (ValueError, RecursionError, binascii.Error):
        raise BadTicket("the body is not JSON") from None
    if not isinstance(document, list) or len(document) != 3 or document[1]:
        raise BadTicket("the body is not [arguments, {}, options]")
    return document[0]


def ticket_headers() -> dict[str, Any]:
    """Headers of Celery's message protocol 2 for a new ticket."""
    ticket_id = str(uuid.uuid4())
    return {
        "lang": "py",
        "task": TICKET_TASK,
        "id": ticket_id,
        "root_id": ticket_id,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "timelimit": [None, None],
        "ignore_result": True,
    }


def ticket_queue(name: str) -> Queue:
    """A queue of tickets, declared alike by those who send and those who read."""
    exchange = Exchange(name, type="direct")  # type: ignore[no-untyped-call]
    return Queue(name, exchange, routing_key=name)  # type: ignore[no-untyped-call]


class TicketSender:
    """Puts tickets at the tail of one queue. Any thread may use it.

    ``send`` returns how many went out and does not raise when the broker cannot be reached: a ticket that was not sent
    is like one that was lost, and the sweeper replaces it.
    """

    def __init__(self, celery_or_connection: Celery | Connection, queue: str) -> None:
        self._source = celery_or_connection
        self.queue = queue
        self._declared = ticket_queue(queue)
        self._errors: tuple[type[BaseException], ...] = (OSError, KombuError)

    def send(self, job_id: str, numbers: Iterable[int]) -> int:
        """Send one ticket for each number; how many went out."""
        waiting = list(numbers)
        for last_try in (False, True):
            try:
                with self._producer() as producer:
                    self._publish(producer, job_id, waiting)
                return len(waiting)
            except self._errors as error:
                # A connection that the server closed while it was idle fails once; a repeated ticket costs nothing.
                if last_try:
                    log.warning("tickets not sent job=%s count=%d reason=%s", job_id, len(waiting), error)
        return 0

    def _producer(self) -> AbstractContextManager[Producer]:
        if isinstance(self._source, Connection):
            pool = producers[self._source]
            connection = self._source
        else:
            pool = self._source.amqp.producer_pool
            connection = pool.connections.connection
        self._errors = (OSError, KombuError, *connection.connection_errors, *connection.channel_errors)
        acquired: AbstractContextManager[Producer] = pool.acquire(block=True, timeout=10)
        return acquired

    def _publish(self, producer: Any, job_id: str, numbers: list[int]) -> None:
        if len(numbers) == 1:
            self._publish_one(producer, job_id, numbers[0])
            return
        with producer.batch():
            for number in numbers:
                self._publish_one(producer, job_id, number)

    def _publish_one(self, producer: Any, job_id: str, number: int) -> None:
        producer.publish(
            [[job_id, number], {}, _EMBED],
            exchange="",
            routing_key=self.queue,
            serializer="json",
            headers=ticket_headers(),
            delivery_mode=1,
            declare=[self._declared],
        )
