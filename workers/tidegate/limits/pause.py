"""pause(): stop a limit for the whole cluster, from outside of a worker."""

from __future__ import annotations

import redis

from tidegate.errors import LedgerUnavailable
from tidegate.limits.store import LimitStore, new_nonce


def pause(client: redis.Redis, name: str, seconds: float) -> None:
    """Nothing starts under the limit ``name`` for ``seconds``, in any process; 0 ends a pause.

    Processes that use the limit learn it with their next request, within about half a second. ``LedgerUnavailable`` when
    the server does not answer.
    """
    store = LimitStore(client, timeout_s=5.0)
    try:
        store.pause(name, seconds, nonce=new_nonce())
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise LedgerUnavailable(
            f"the limit {name!r} could not be paused: {error}", remedy="check TIDEGATE_URL and that the server runs"
        ) from error
    finally:
        store.close()
