"""Every Redis key of jobs, workers and telemetry, in one table. Nobody else builds one.

A job's keys share the hash tag ``{JOB}``, so that a Redis Cluster keeps them together; the scripts derive them from the
job's meta key (``scripts/include/job.lua``; a test compares the two). Every key of a job lives for ``IDLE_MS`` after the
job was last touched, and for the job's ``ttl_s`` after it ended.

    tg:{JOB}:meta      hash     state, counters, options; the only counters of a job
    tg:{JOB}:ready     list     records of batches to be claimed, next one first
    tg:{JOB}:delayed   zset     records of batches by when they are due (ms)
    tg:{JOB}:lease     hash     batch → token, claimer, record
    tg:{JOB}:leases    zset     batch by deadline (ms)
    tg:{JOB}:payloads  hash     batch → payload, until its last item has an outcome
    tg:{JOB}:bits      hash     batch → bitmap of settled items, while only some are
    tg:{JOB}:attempts  hash     batch → executions used up, a byte per item, for batches handed back
    tg:{JOB}:crashes   hash     batch → the same for crashes
    tg:{JOB}:results   stream   a block of results per commit
    tg:{JOB}:dead      stream   a block of dead letters per commit
    tg:{JOB}:traces    hash     fingerprint → trace, at most 1,000
    tg:{JOB}:errors    hash     error type → count, at most 1,000 and "other"
    tg:{JOB}:stats     hash     histogram fields of model.stats
    tg:{JOB}:recent    list     histogram fields of the last commits, packed, at most 32; then added to stats
    tg:{JOB}:seen      hash     claimer → its last request and reply
    tg:{JOB}:tickets   zset     ticket by when it was last seen (ms)
    tg:{JOB}:events    stream   changes of state, the last 16

    tg:{@}:jobs        zset     job by creation (ms): the index
    tg:{@}:active      zset     job by last sweep (ms): jobs that have not ended
    tg:{@}:expiring    zset     job by when to look whether it is gone (ms)
    tg:{@}:turn        string   the sweeper at work; lives for its turn
    tg:{@}:workers     zset     worker by when it counts as gone (ms); the three live for ten heartbeats' time to live
    tg:{@}:slots       hash     worker → slots; their sum under the empty name
    tg:{@}:facts       hash     worker → what it says of itself, msgpack
    tg:{@}:incarnation string   random, written once: a server that lost everything has another one
    tg:{@}:synced      string   what ``sync`` writes to see it reach the disk
    tg:{@}:telemetry   stream   telemetry records, trimmed by its writers
    tg:{@}:quarantine  stream   messages that workers refused, with the reason, trimmed by its writers
    tg:{@}:collector   hash     the collector's checkpoint (checkpoint.py)
    tg:{limit:NAME}…           limits: see tidegate/limits/keys.py; they live for an hour after their last use
"""

from __future__ import annotations

import re

from tidegate.errors import ConfigurationError

JOB_KEYS = (
    "meta",
    "ready",
    "delayed",
    "lease",
    "leases",
    "payloads",
    "bits",
    "attempts",
    "crashes",
    "results",
    "dead",
    "traces",
    "errors",
    "stats",
    "recent",
    "seen",
    "tickets",
    "events",
)

JOBS = b"tg:{@}:jobs"
ACTIVE = b"tg:{@}:active"
EXPIRING = b"tg:{@}:expiring"
TURN = b"tg:{@}:turn"
WORKERS = b"tg:{@}:workers"
SLOTS = b"tg:{@}:slots"
FACTS = b"tg:{@}:facts"
INCARNATION = b"tg:{@}:incarnation"
SYNCED = b"tg:{@}:synced"
TELEMETRY = b"tg:{@}:telemetry"
QUARANTINE = b"tg:{@}:quarantine"
COLLECTOR = b"tg:{@}:collector"

#: How long the keys of a job that has not ended live after it was last touched.
IDLE_MS = 30 * 86_400_000

_JOB_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def job_key(job_id: str, name: str) -> bytes:
    """One key of a job; ``name`` is one of ``JOB_KEYS``.

    >>> job_key("j1", "meta")
    b'tg:{j1}:meta'
    """
    return b"tg:{%b}:%b" % (_checked(job_id), name.encode())


def job_keys(job_id: str) -> list[bytes]:
    """All keys of a job."""
    return [job_key(job_id, name) for name in JOB_KEYS]


def _checked(job_id: str) -> bytes:
    if not _JOB_ID.fullmatch(job_id):
        raise ConfigurationError(f"job id {job_id!r}", remedy="use 1 to 64 letters, digits, and _ . -")
    return job_id.encode()
