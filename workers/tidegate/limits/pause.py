"""pause(): stop a limit for the whole cluster, from outside of a worker."""

from __future__ import annotations

import redis

from tidegate.errors import LedgerUnavailable
from tidegate.limits.key_store import KeyStore
from tidegate.limits.store import LimitStore, new_nonce
from tidegate.model.limit_key import key_id


def pause(client: redis.Redis, name: str, seconds: float, *, key: str | int | bytes | None = None) -> None:
    """Nothing starts under the limit ``name`` for ``seconds``, in any process; 0 ends a pause.

    With ``key``: nothing of that key of a keyed limit; all other keys go on.

    Processes that use the limit learn it with their next request, within about half a second. ``LedgerUnavailable`` when
    the server does not answer.
    """
    store = LimitStore(client, timeout_s=5.0)
    try:
        if key is None:
            store.pause(name, seconds, nonce=new_nonce())
        else:
            KeyStore(store, name).pause_key(key_id(key), seconds)
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise LedgerUnavailable(
            f"the limit {name!r} could not be paused: {error}", remedy="check TIDEGATE_URL and that the server runs"
        ) from error
    finally:
        store.close()
