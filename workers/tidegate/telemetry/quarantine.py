"""The quarantine: what workers refused to read from their queues, with the reason. The last thousand are kept for a week."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import redis

#: The one key; it is listed with all others in ``ledger/keys.py``.
QUARANTINE = b"tg:{@}:quarantine"
_KEPT = 1000
_TTL_S = 7 * 86_400
_MAX_SAMPLE = 512


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused message: when (milliseconds since 1970, the server's clock), by which worker, why, and its first bytes."""

    when_ms: int
    worker: str
    reason: str
    sample: bytes


class Quarantine:
    """Bounded by its writers. ``note`` raises redis-py's errors.

    >>> from tidegate.embedded import EmbeddedServer
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, EmbeddedServer(folder) as server:
    ...     quarantine = Quarantine(server.client())
    ...     quarantine.note("w1", "the message is not JSON", b"junk")
    ...     [refusal.reason for refusal in quarantine.newest()]
    ['the message is not JSON']
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def note(self, worker: str, reason: str, sample: bytes) -> None:
        """Keep one refused message."""
        fields: dict[Any, Any] = {"worker": worker, "reason": reason[:500], "sample": sample[:_MAX_SAMPLE]}
        pipe = self._client.pipeline(transaction=False)
        pipe.xadd(QUARANTINE, fields, maxlen=_KEPT, approximate=True)
        pipe.expire(QUARANTINE, _TTL_S)
        pipe.execute()

    def newest(self, count: int = 20) -> list[Refusal]:
        """The last ones, newest first."""
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", self._client.xrevrange(QUARANTINE, count=count))
        return [
            Refusal(
                when_ms=int(entry_id.partition(b"-")[0]),
                worker=fields.get(b"worker", b"").decode(errors="replace"),
                reason=fields.get(b"reason", b"").decode(errors="replace"),
                sample=fields.get(b"sample", b""),
            )
            for entry_id, fields in entries
        ]
