"""Connecting to the ledger's server, and what its failures mean.

URLs: ``redis://[user:password@]host:port/db``, ``rediss://`` (TLS), ``unix:///path/to.sock?db=0``, and
``sentinel://[user:password@]host:port,host:port/SERVICE[/DB]``. Timeouts are bounded: 5 s to connect, 5 s for a reply.
"""

from __future__ import annotations

import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from tidegate.errors import (
    ConfigurationError,
    LedgerDenied,
    LedgerError,
    LedgerFull,
    LedgerUnavailable,
    LedgerUnsuitable,
)

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 5.0

_DENIED = re.compile(r"^(NOAUTH|WRONGPASS|NOPERM)|invalid username-password|Authentication required", re.IGNORECASE)
_DISK = re.compile(r"^MISCONF")
_TRANSIENT = re.compile(r"^(LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|READONLY|NOREPLICAS|MISCONF|UNBLOCKED)\b")


def safe_url(url: str) -> str:
    """The URL without its password, for messages.

    >>> safe_url("redis://me:secret@host:6379/0")
    'redis://me:***@host:6379/0'
    """
    return re.sub(
        r"(?<=://)([^/:@]*):[^/]*@", r"\1:***@", re.sub(r"([?&](?:\w*password|username)=)[^&]*", r"\1***", url)
    )


def connect(
    url: str,
    *,
    retries: int = 3,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    reply_timeout_s: float = REPLY_TIMEOUT_S,
    name: str = "tidegate",
    max_connections: int | None = None,
) -> redis.Redis:
    """A client with bounded timeouts, keepalive and ``retries`` jittered retries; nothing is sent yet.

    Its pool notices a fork: a child opens connections of its own. ``ConfigurationError`` if the URL makes no sense.

    >>> connect("http://example.org")
    Traceback (most recent call last):
    ...
    tidegate.errors.ConfigurationError: ledger URL 'http://example.org': use redis://, rediss://, unix:// or sentinel://
    """
    options: dict[str, Any] = {
        "socket_timeout": reply_timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0) if retries else NoBackoff(), retries),
        "client_name": name,
        "decode_responses": False,
        "protocol": 2,
    }
    if max_connections:
        options["max_connections"] = max_connections
    scheme = urlsplit(url).scheme
    try:
        if scheme == "sentinel":
            return _by_sentinel(url, options)
        if scheme not in ("redis", "rediss", "unix"):
            raise ValueError
        if scheme != "unix":
            options |= {"socket_keepalive": True, "socket_keepalive_options": _keepalive()}
        return redis.Redis.from_url(url, **options)
    except ValueError:
        raise ConfigurationError(
            f"ledger URL {safe_url(url)!r}", remedy="use redis://, rediss://, unix:// or sentinel://"
        ) from None


def _by_sentinel(url: str, options: dict[str, Any]) -> redis.Redis:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not hosts:
        raise ValueError
    addresses = [(host.rpartition(":")[0] or host, int(host.rpartition(":")[2] or 26379)) for host in hosts.split(",")]
    login = {"username": unquote(user) or None, "password": unquote(password) or None, "db": int(db or 0)}
    make: Any = Sentinel  # redis-py's own annotations leave these two out
    asking = {
        "socket_timeout": options["socket_connect_timeout"],
        "socket_connect_timeout": options["socket_connect_timeout"],
        "retry": Retry(NoBackoff(), 0),
    }
    client: redis.Redis = make(addresses, sentinel_kwargs=asking).master_for(service, **options, **login)
    return client


def _keepalive() -> dict[int, int]:
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def is_transient(error: BaseException) -> bool:
    """Whether sending the same request again may help."""
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
        return False
    if isinstance(error, (RedisConnectionError, RedisTimeoutError, BusyLoadingError)):
        return not _DENIED.search(str(error))
    return isinstance(error, ResponseError) and bool(_TRANSIENT.match(str(error)) or _kind(error) in _TRANSIENT_KINDS)


_TRANSIENT_KINDS = {"ReadOnlyError", "MasterDownError", "ClusterDownError", "TryAgainError"}


def _kind(error: BaseException) -> str:
    return type(error).__name__


def translate(error: RedisError, where: str) -> LedgerError:
    """What a failure of the server means, as an error that says what to do. ``where`` is a URL without a password."""
    text = str(error)
    if isinstance(
        error, (AuthenticationError, AuthenticationWrongNumberOfArgsError, AuthorizationError, NoPermissionError)
    ) or _DENIED.search(text):
        return LedgerDenied(
            f"the server at {where} refused these credentials ({_first_word(text)})",
            remedy="correct user and password in TIDEGATE_URL, or grant ~tg:* and @all to the user",
        )
    if isinstance(error, OutOfMemoryError) or text.startswith("OOM") or "OOM " in text:
        return LedgerFull(
            f"the server at {where} is out of memory",
            remedy="let workers drain it, delete ended jobs, or raise its maxmemory",
        )
    if _DISK.match(text):
        return LedgerUnavailable(
            f"the server at {where} cannot write to its disk", remedy="free disk space; it recovers by itself"
        )
    if unsuitable := _unsuitable(text, where):
        return unsuitable
    if is_transient(error):
        return LedgerUnavailable(
            f"no answer from the ledger at {where} ({_first_line(text)})",
            remedy="start the server, or correct TIDEGATE_URL; `tidegate doctor` checks it",
        )
    return LedgerError(f"the ledger at {where} refused a request ({_first_line(text)})", remedy="see `tidegate doctor`")


def _unsuitable(text: str, where: str) -> LedgerUnsuitable | None:
    if layout := re.search(r"LAYOUT (\d+)", text):
        return LedgerUnsuitable(
            f"the job was written by another version of Tidegate (layout {layout[1]})",
            remedy="run the same version everywhere; upgrade the workers before the producers",
        )
    if "WAITAOF" in text:
        return LedgerUnsuitable(
            f"the server at {where} cannot say what is on its disk ({_first_line(text)})",
            remedy="set appendonly yes on Redis 7.2 or newer, or do without durable submissions",
        )
    return None


def _first_word(text: str) -> str:
    word = text.partition(" ")[0].rstrip(".:")
    return word if word.isupper() else "not authenticated"


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:200].rstrip(". ")


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn redis-py's errors into ledger errors."""
    try:
        yield
    except RedisError as error:
        raise translate(error, where) from None


def retrying(send: Callable[[], T], *, tries: int, where: str) -> T:
    """Call ``send`` until it answers, at most ``tries`` times, with jittered waits of up to 50, 100, 200, … ms between.

    Only for requests that may be executed twice: every script of the ledger.
    """
    for attempt in range(1, tries + 1):
        try:
            return send()
        except RedisError as error:
            if attempt == tries or not is_transient(error):
                raise translate(error, where) from None
            time.sleep(random.uniform(0, min(1.0, 0.05 * 2 ** (attempt - 1))))
    raise AssertionError("unreachable: tries is at least 1")
