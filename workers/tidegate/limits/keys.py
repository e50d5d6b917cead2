"""Every key of a limit, in one place. One hash tag per limit, so that a Redis Cluster keeps them together.

| key | type | holds | lives |
|---|---|---|---|
| ``tg:{limit:NAME}`` | hash | kind, value, tolerance, version; tat or total; paused | an hour after its last use |
| ``tg:{limit:NAME}:holders`` | zset | holder to the end of its lease | an hour after its last use |
| ``tg:{limit:NAME}:permits`` | hash | permits, last request and turn of each holder | an hour after its last use |
| ``tg:{limit:NAME}:waiting`` | zset | holders with less than their share | an hour after its last use |
| ``tg:{limit:NAME}:last:HOLDER`` | string | the last answer to a holder, for a repeated request | 30 s |
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


def answer_key(name: str, holder: str) -> str:
    """The last answer that a holder was given."""
    return f"{limit_key(name)}:last:{holder}"
