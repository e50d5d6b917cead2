"""kombu's Redis transport, made to survive what strangers put into a ticket queue.

The stock one parses a list element without a guard, so that one malformed element ends the worker; and it decompresses
and decodes what headers ask for before anything is checked. This one hands Celery only messages that were rebuilt from a
validated ticket. It is used by worker processes, for reading tickets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as stock

from tidegate.worker.tickets import BadTicket, canonical_message

log = logging.getLogger(__name__)


class Refusals:
    """Counts what is refused in this process, and hands it to ``keep(reason, sample)``, which the worker process sets."""

    def __init__(self) -> None:
        self.count = 0
        self.keep: Callable[[str, bytes], None] | None = None

    def note(self, reason: str, sample: bytes) -> None:
        """A message is not a ticket. Never raises."""
        self.count += 1
        log.warning("message refused reason=%r", reason)
        if self.keep is not None:
            try:
                self.keep(reason, sample[:512])
            except Exception as error:  # noqa: BLE001 - whatever is wrong, tickets have to be read on
                log.warning("the refused message was not kept reason=%s", error)


#: One for the process: kombu makes channels by itself, and knows nothing of ours.
refusals = Refusals()


class _TicketChannel:
    """Reads of both kinds (event loop, polling), guarded; it writes nothing."""

    def _brpop_read(self: Any, **options: Any) -> bool:
        try:
            try:
                reply = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not reply:
                raise Empty
            destination, item = reply
            queue = destination.decode().rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self.connection._deliver(_ticket_in(item, queue), queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _queue_bind(self: Any, *_: Any) -> None:
        """Tickets go to their queue by its name. The table of bindings is not needed, and a full server refuses to write it:
        a worker that starts then would not read the tickets that are there."""

    def _get(self: Any, queue: str) -> dict[str, Any]:
        with self.conn_or_acquire() as client:
            for priority in self.priority_steps:
                item = client.rpop(self._q_for_pri(queue, priority))
                if item:
                    return _ticket_in(item, queue)
        raise Empty


def _ticket_in(item: bytes, queue: str) -> dict[str, Any]:
    try:
        return canonical_message(item, queue)
    except BadTicket as error:
        refusals.note(str(error), item)
        raise Empty from None


class TicketChannel(_TicketChannel, stock.Channel):  # type: ignore[misc]
    """A channel of one Redis server."""


class TicketSentinelChannel(_TicketChannel, stock.SentinelChannel):  # type: ignore[misc]
    """A channel of a Redis that Sentinel watches."""


class TicketTransport(stock.Transport):
    """For ``redis://``, ``rediss://`` and, by its alias, for unix sockets."""

    Channel = TicketChannel


class TicketSentinelTransport(stock.SentinelTransport):
    """For ``sentinel://``."""

    Channel = TicketSentinelChannel


#: Only a name in a URL's scheme selects the transport of a unix socket, so this one gets a name.
SOCKET_ALIAS = "tidegate"
TRANSPORT_ALIASES.setdefault(SOCKET_ALIAS, "tidegate.worker.transport:TicketTransport")
