"""TelemetryRecord: the counters and times that one process added since its last record, and how it stands now."""

from __future__ import annotations

import msgspec

RECORD_VERSION = 1


class LaneDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """One task in one process. Counters and ``stats`` (fields as in ``model.stats``) are deltas, the rest is now."""

    task: str
    started: int = 0
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    crashed: int = 0
    retried: int = 0
    retries_refused: int = 0
    busy_ns: int = 0
    concurrency: int = 0
    running: int = 0
    peak_running: int = 0
    waiting_queued: int = 0
    waiting_limited: int = 0
    waiting_backoff: int = 0
    stats: dict[str, int] = msgspec.field(default_factory=dict)
    errors: dict[str, int] = msgspec.field(default_factory=dict)
    limits: dict[str, int] = msgspec.field(default_factory=dict)


class TelemetryRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """``worker`` is unique per process start; ``sequence`` counts its records from 1, so that each is added once.

    ``interval_ns``: time that the deltas cover. ``idle_ns``: part of it in which slots had nothing claimed, summed over
    slots. ``commits``, ``claims``, ``redis_ns``: calls to the ledger and time in them. ``refused``: messages in its queues
    that were no tickets. Memory in bytes; ``memory_limit`` is the limit that applies to this process;
    ``pressure_soft``/``pressure_hard`` count how often the marks were crossed.
    """

    version: int = RECORD_VERSION
    worker: str
    sequence: int
    host: str = ""
    pid: int = 0
    queues: tuple[str, ...] = ()
    wall_ms: int = 0
    interval_ns: int = 0
    slots: int = 0
    idle_ns: int = 0
    claims: int = 0
    empty_claims: int = 0
    commits: int = 0
    stale_commits: int = 0
    refused: int = 0
    redis_ns: int = 0
    cpu_ns: int = 0
    memory_bytes: int = 0
    memory_peak_bytes: int = 0
    memory_limit_bytes: int = 0
    pressure_soft: int = 0
    pressure_hard: int = 0
    started: bool = False
    stopping: bool = False
    lanes: tuple[LaneDelta, ...] = ()
