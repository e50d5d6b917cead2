"""One way to the server: every request of the ledger goes through here, is retried here, and fails here."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import redis
from redis.exceptions import NoScriptError, ResponseError

from tidegate.errors import LedgerError
from tidegate.ledger import keys
from tidegate.ledger.connection import is_transient, retrying
from tidegate.ledger.scripts import Script, load

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command

Arg = bytes | str | int | float
#: Called around every attempt to send a request, with its name: tests lose replies and requests here.
Interceptor = Callable[[str, Callable[[], Any]], Any]


class Caller:
    """Sends scripts and commands. ``skew_ms`` shifts the clock that scripts see, or replaces it when it is as large as a
    date; it is 0 outside tests."""

    def __init__(
        self, client: redis.Redis, *, where: str, tries: int, skew_ms: int, interceptor: Interceptor | None
    ) -> None:
        self.client = client
        self.where = where
        self.tries = tries
        self.skew_ms = skew_ms
        self.interceptor = interceptor
        self._line = DirectLine(client)

    def close(self) -> None:
        """Give the connections back to the client's pool."""
        self._line.close()

    def script(self, name: str, key_names: Sequence[bytes], *args: Arg) -> Any:
        """Run a script of the ledger. It may run twice: scripts are idempotent."""
        script = load(name)
        return self._send(name, lambda: self._evaluate(script, key_names, args))

    def job(self, name: str, job_id: str, *args: Arg) -> Any:
        """Run a script on one job."""
        return self.script(name, (keys.job_key(job_id, "meta"),), self.skew_ms, *args)

    def command(self, name: str, send: Callable[[redis.Redis], Any]) -> Any:
        """Send commands that may be executed twice."""
        return self._send(name, lambda: send(self.client))

    def _send(self, name: str, send: Callable[[], Any]) -> Any:
        intercept = self.interceptor
        attempt = send if intercept is None else lambda: intercept(name, send)
        return retrying(attempt, tries=self.tries, where=self.where)

    def _evaluate(self, script: Script, key_names: Sequence[bytes], args: Sequence[Arg]) -> Any:
        request = (len(key_names), *key_names, *args)
        try:
            return self._line.execute(b"EVALSHA", script.sha, *request)
        except NoScriptError:
            return self._line.execute(b"EVAL", self._known(script), *request)

    def _known(self, script: Script) -> str:
        """The text that this server takes; EVAL also teaches it the SHA-1."""
        try:
            self.client.script_load(script.text)
        except ResponseError as error:
            if "compil" not in str(error).lower():
                raise
            return script.without_flags().text
        return script.text


class DirectLine:
    """One command on a connection of its own: half the processor time of ``Redis.execute_command``.

    A connection is used by one thread at a time and kept for the next. After a fork the child starts with none. After a
    failure in between all of them are closed and go back to the pool: one could hold half a reply, and the others lead to
    the same server, which may not be the right one any more (the pool asks a sentinel again; a connection alone does not).
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._idle: list[Any] = []
        self._pid = os.getpid()

    def execute(self, *command: Arg) -> Any:
        """Send one command and return its reply; redis-py's errors."""
        if self._pid != os.getpid():
            self._idle, self._pid = [], os.getpid()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._pool.get_connection()
        clean = False
        try:
            connection.send_packed_command((_pack(command),))
            reply = connection.read_response()
            clean = True
            return reply
        except ResponseError as error:
            clean = not is_transient(error)
            raise
        finally:
            if clean:
                self._idle.append(connection)
            else:
                connection.disconnect()
                self._pool.release(connection)
                self.close()

    def close(self) -> None:
        """Close the idle connections and give them back to the pool."""
        while self._idle and self._pid == os.getpid():
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                return
            connection.disconnect()
            self._pool.release(connection)


def malformed(name: str, reply: Any) -> LedgerError:
    """The server answered what no script of this version answers."""
    return LedgerError(f"{name}: unexpected reply {reply!r:.200}", remedy="run the same version of Tidegate everywhere")
