"""Telemetry records with their stream ids, as the collector reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tidegate.model.stats import coarse_index
from tidegate.telemetry.record import LaneDelta, TelemetryRecord

T0_MS = 1_700_000_000_000
SECOND_NS = 10**9

Entry = tuple[str, TelemetryRecord]


def entry(
    sequence: int, worker: str = "w", *, at_ms: int | None = None, lane: dict[str, Any] | None = None, **fields: Any
) -> Entry:
    """Record ``sequence`` of a worker: in one second ten items of 5 ms succeeded."""
    stats = {f"running:{coarse_index(5_000_000)}": 10, "running_count": 10, "running_sum_ns": 50_000_000}
    counts = {"task": "t", "started": 10, "succeeded": 10, "busy_ns": 50_000_000, "concurrency": 8, "running": 3}
    record = TelemetryRecord(
        worker=worker,
        sequence=sequence,
        **{
            "host": "box",
            "pid": 7,
            "interval_ns": SECOND_NS,
            "slots": 2,
            "idle_ns": SECOND_NS,
            "memory_bytes": 100,
            "lanes": (LaneDelta(**{**counts, "stats": stats, **(lane or {})}),),
            **fields,
        },
    )
    return f"{T0_MS + 1000 * sequence if at_ms is None else at_ms}-0", record


@pytest.fixture
def make_entry() -> Callable[..., Entry]:
    return entry
