"""How an item ends, and how a job stands."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Outcome(StrEnum):
    """The five ways in which an item ends."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    CRASHED = "crashed"


class JobState(StrEnum):
    """``open``: still being submitted; ``sealed``: all submitted; then one of the ends. ``parked``: waits for an operator."""

    OPEN = "open"
    SEALED = "sealed"
    DONE = "done"
    CANCELLED = "cancelled"
    PARKED = "parked"


class FailureRecord(msgspec.Struct, frozen=True, array_like=True):
    """One dead letter: an item whose last attempt did not succeed. ``arguments`` are in wire form."""

    index: int
    outcome: Outcome
    error_type: str
    message: str
    fingerprint: str
    attempts: int
    arguments: bytes
    run_ns: int = 0
    finished_wall_ms: int = 0
    history: tuple[str, ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """What ``job.failures()`` yields: a dead letter with its arguments decoded and its trace looked up."""

    index: int
    outcome: Outcome
    error_type: str
    message: str
    attempts: int
    arguments: object
    traceback: str
    fingerprint: str
    history: tuple[str, ...] = ()
