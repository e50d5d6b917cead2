"""Every key of a limit, in one place. One hash tag per limit, so that a Redis Cluster keeps them together.

| key | type | holds | lives |
|---|---|---|---|
| ``tg:{limit:NAME}`` | hash | kind, value, tolerance, version; tat or total; paused | an hour after its last use |
| ``tg:{limit:NAME}:holders`` | zset | holder to the end of its lease | an hour after its last use |
| ``tg:{limit:NAME}:permits`` | hash | permits, last request and turn of each holder | an hour after its last use |
| ``tg:{limit:NAME}:waiting`` | zset | holders with less than their share | an hour after its last use |
| ``tg:{limit:NAME}:last:HOLDER`` | string | the last answer to a holder, for a repeated request | 30 s |
| keyed limits: | | | |
| ``tg:{limit:NAME}:sequences`` | hash | last request of each holder | an hour after its last use |
| ``tg:{limit:NAME}:wanted`` | zset | keys that somebody with less than its share waits for | seconds after the wish |
| ``tg:{limit:NAME}:paused`` | zset | key to the end of its pause | an hour after the longest pause |
| ``tg:{limit:NAME}:pause-news`` | zset | key to the number of its last pause | an hour after the longest pause |
| ``tg:{limit:NAME}:key:ID`` | hash, string | permits of each holder; or the next slot of a rate | while held; while it binds |

``ID`` is the key's 64-bit name in hexadecimal (:mod:`tidegate.model.limit_key`), whatever its length was.
"""

from __future__ import annotations

#: How long a limit is remembered after its last use. A forgotten rate limit that was idle for longer than its tolerance,
#: or a concurrency limit with no live holder, is as good as new; the definition comes back with the next declaration.
LIMIT_TTL_MS = 3_600_000
#: How long a repeated request still finds its answer; much longer than any client's retries.
ANSWER_TTL_MS = 30_000


def limit_key(name: str) -> str:
    """The limit itself.

    >>> limit_key("api")
    'tg:{limit:api}'
    """
    return f"tg:{{limit:{name}}}"


def holders_key(name: str) -> str:
    """Who holds permits, and until when."""
    return f"{limit_key(name)}:holders"


def permits_key(name: str) -> str:
    """How many permits each holder has."""
    return f"{limit_key(name)}:permits"


def waiting_key(name: str) -> str:
    """Holders that have less than their share."""
    return f"{limit_key(name)}:waiting"


def sequences_key(name: str) -> str:
    """The last request of each holder of a keyed limit."""
    return f"{limit_key(name)}:sequences"


def wanted_key(name: str) -> str:
    """Keys of a keyed limit that somebody waits for."""
    return f"{limit_key(name)}:wanted"


def paused_key(name: str) -> str:
    """Until when which keys of a keyed limit are paused."""
    return f"{limit_key(name)}:paused"


def pause_news_key(name: str) -> str:
    """In what order the keys of a keyed limit were paused."""
    return f"{limit_key(name)}:pause-news"


def one_key(name: str, key: str) -> str:
    """One key of a keyed limit.

    >>> one_key("host", "0f")
    'tg:{limit:host}:key:0f'
    """
    return f"{limit_key(name)}:key:{key}"


def answer_key(name: str, holder: str) -> str:
    """The last answer that a holder was given."""
    return f"{limit_key(name)}:last:{holder}"
