"""The collector's checkpoint: its place in the telemetry stream and its totals, saved together so that they always agree.

One hash, ``tg:{@}:collector``. Any number of collectors may add up the stream; one at a time owns the checkpoint and saves.
The others notice when it falls silent, because each tries to save. Times are the server's.
"""

from __future__ import annotations

from typing import Any

from tidegate.ledger import keys
from tidegate.ledger.connection import connect, safe_url, translated

#: A checkpoint that nobody has saved for this long is forgotten, and so is an owner that fell silent.
KEEP_MS = 7 * 86_400_000
OWNER_MS = 15_000

# KEYS 1 hash  ARGV 1 owner  2 owner ms  3 keep ms  4 position (ms)  5 position (number)  6 state
# Returns 1 when saved, 0 when somebody else owns it, -1 when what is there goes further than this.
# Position and state are written together or not at all; a position never goes back.
_SAVE = """#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'owner', 'until_ms', 'ms', 'number')
if kept[1] and kept[1] ~= ARGV[1] and tonumber(kept[2]) > now then return 0 end
local ms, number = tonumber(kept[3] or '0'), tonumber(kept[4] or '0')
if ms > tonumber(ARGV[4]) or (ms == tonumber(ARGV[4]) and number > tonumber(ARGV[5])) then return -1 end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until_ms', string.format('%.0f', now + tonumber(ARGV[2])),
  'ms', ARGV[4], 'number', ARGV[5], 'state', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

# KEYS 1 hash  ARGV 1 owner. Lets the next collector take over at once.
_RELEASE = """#!lua flags=allow-oom
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then redis.call('HSET', KEYS[1], 'until_ms', '0') end
return 1
"""


class Checkpoint:
    """One collector's access to the checkpoint. ``owner`` is unique per collector start."""

    def __init__(self, url: str, owner: str) -> None:
        self._client = client = connect(url, name="tidegate-collector")
        self._owner = owner
        self._where = safe_url(url)
        self._save = client.register_script(_SAVE)
        self._release = client.register_script(_RELEASE)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def load(self) -> tuple[str, bytes] | None:
        """Position and state as saved last, by whomever; None when there is no checkpoint."""
        with translated(self._where):
            found: list[Any] = self._client.hmget(keys.COLLECTOR, ["ms", "number", "state"])
        ms, number, state = found
        return None if state is None else (f"{int(ms)}-{int(number)}", state)

    def save(self, position: str, state: bytes) -> bool:
        """Write both; False, with nothing written, when another collector owns the checkpoint or is further."""
        ms, _, number = position.partition("-")
        arguments: list[Any] = [self._owner, OWNER_MS, KEEP_MS, int(ms), int(number or 0), state]
        with translated(self._where):
            return bool(self._save(keys=[keys.COLLECTOR], args=arguments) == 1)

    def release(self) -> None:
        """Give up ownership: the next collector need not wait for it to run out."""
        with translated(self._where):
            self._release(keys=[keys.COLLECTOR], args=[self._owner])

    def server_ms(self) -> int:
        """The server's clock, which stream positions are made of."""
        with translated(self._where):
            seconds, microseconds = self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000
