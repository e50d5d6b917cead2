"""The limits in Redis, as typed calls: one call is one script. The only module here that knows redis-py."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry as ClientRetry

from tidegate.limits import keys
from tidegate.limits.plan import plan_rate
from tidegate.model.limit import Limit

#: Nothing is granted whose time is further away than this: no process takes much of the future from the others.
HORIZON_US = 250_000
#: How long a holder keeps a permit while others have none at all.
TURN_MS = 500


@dataclass(frozen=True, slots=True)
class Undeclared:
    """The server does not know the limit (any more), or knows it as another kind (``other_kind``)."""

    other_kind: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """An answer of ``lease_slots``. Times ``_us`` are the server's clock; ``wait_us`` is a duration."""

    granted: int
    start_us: int
    interval_ns: int
    tolerance_us: int
    now_us: int
    paused_us: int
    wait_us: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Permits:
    """An answer of ``hold_permits``: how many may be in use, how many the server counts as ours."""

    allowed: int
    recorded: int
    paused_us: int
    now_us: int
    others_waiting: int
    version: int
    limit: int
    fresh: bool


class LimitStore:
    """The scripts over one connection of its own, with deadlines: a silent server must not outlast a lease.

    ``client`` says where the server is; a request is given up after ``timeout_s`` and never sent again by the client
    itself. Methods raise what redis-py raises.
    """

    def __init__(self, client: redis.Redis, *, timeout_s: float = 1.0) -> None:
        self._client = _impatient(client, timeout_s)
        self.answers = 0  #: requests answered so far
        self._plain: bool | None = None
        self._scripts: dict[str, Any] = {}

    def close(self) -> None:
        """Give the connection back to the system."""
        self._client.close()
        self._client.connection_pool.disconnect()

    def declare(self, limit: Limit, *, version: int) -> int:
        """Say what the limit is. ``version`` 0: newest of all. Returns the version to repeat it with."""
        kind = "" if limit.key is None else "keyed "
        if limit.concurrency is not None:
            definition: tuple[str | int, ...] = (f"{kind}concurrency", limit.concurrency, 0)
        else:
            plan = plan_rate(limit.rate_per_s or 1.0, limit.burst_permits)
            definition = (f"{kind}rate", plan.interval_ns, plan.tolerance_us)
        answer = self.run("declare", [keys.limit_key(limit.name)], [*definition, version, keys.LIMIT_TTL_MS])
        return int(answer[0])

    def lease_slots(self, name: str, holder: str, *, nonce: str, want: int, ahead: int) -> Slots | Undeclared:
        """Take up to ``want`` slots, ``ahead`` of them in the future."""
        answer = self.run(
            "lease_slots",
            [keys.limit_key(name), keys.answer_key(name, holder)],
            [nonce, want, ahead, HORIZON_US, keys.LIMIT_TTL_MS, keys.ANSWER_TTL_MS],
        )
        if answer[0] < 0:
            return Undeclared(other_kind=answer[0] == -2)
        granted, start, interval, tolerance, now, paused, wait, version = answer
        return Slots(
            granted=granted, start_us=start, interval_ns=interval, tolerance_us=tolerance, now_us=now, paused_us=paused,
            wait_us=wait, version=version,
        )  # fmt: skip

    def hold_permits(
        self, name: str, holder: str, *, sequence: int, want: int, in_use: int, lease_ms: int
    ) -> Permits | Undeclared:
        """Hold up to ``want`` permits until ``lease_ms`` from now, at least the ``in_use`` ones."""
        answer = self.run(
            "hold_permits",
            [keys.limit_key(name), keys.holders_key(name), keys.permits_key(name), keys.waiting_key(name)],
            [holder, sequence, want, in_use, lease_ms, TURN_MS, keys.LIMIT_TTL_MS],
        )
        if answer[0] < 0:
            return Undeclared(other_kind=answer[0] == -2)
        allowed, recorded, paused, now, others, version, limit, fresh = answer
        return Permits(
            allowed=allowed, recorded=recorded, paused_us=paused, now_us=now, others_waiting=others, version=version,
            limit=limit, fresh=bool(fresh),
        )  # fmt: skip

    def pause(self, name: str, seconds: float, *, nonce: str) -> tuple[int, int]:
        """Nothing starts under the limit for ``seconds``, anywhere. Returns (paused until, now), server microseconds."""
        paused, now = self.run(
            "pause", [keys.limit_key(name)], [nonce, max(0, round(seconds * 1e6)), keys.LIMIT_TTL_MS]
        )
        return int(paused), int(now)

    def run(self, script: str, names: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """One call of a script: what it returned."""
        registered = self._scripts.get(script)
        if registered is None:
            text = _script(script)
            if self._needs_plain():
                text = text.partition("\n")[2]
            registered = self._scripts[script] = self._client.register_script(text)
        answer = registered(keys=list(names), args=list(arguments))
        self.answers += 1
        return answer

    def _needs_plain(self) -> bool:
        """Servers before 7 take no flags in a script's first line (and let a script write when memory is full)."""
        if self._plain is None:
            version = str(self._client.info("server").get("redis_version", "7"))
            self._plain = int(version.partition(".")[0]) < 7
        return self._plain


def new_nonce() -> str:
    """A fresh name for one request."""
    return secrets.token_hex(8)


def _script(name: str) -> str:
    return (resources.files("tidegate.limits") / "scripts" / f"{name}.lua").read_text("utf-8")


def _impatient(client: redis.Redis, timeout_s: float) -> redis.Redis:
    pool = client.connection_pool
    options = {
        **pool.connection_kwargs,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": ClientRetry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
    }
    own = redis.ConnectionPool(connection_class=pool.connection_class, max_connections=4, **options)
    return redis.Redis(connection_pool=own)
