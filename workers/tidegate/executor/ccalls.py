"""Executor.map over a C function: arrays in, arrays out, no GIL in between."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from typing import Any

from tidegate.executor.failure import ItemFailure, fingerprint
from tidegate.executor.host import Lane
from tidegate.executor.kinds import DOUBLES, CFunction
from tidegate.executor.outcomes import Outcomes, Part
from tidegate.model.outcome import Outcome


def map_c(lane: Lane, function: CFunction, items: Sequence[Any]) -> Outcomes:
    """Outcomes of a C function applied to numbers (a list, or a buffer of doubles, which is not copied) or bytes."""
    threads = c_threads(function, lane)
    if function.signature == DOUBLES:
        source = items if _is_doubles(items) else array("d", items)
        results = array("d", bytes(8 * len(items)))
        call = lane.inside.start_c(function.address, True, source, out=results, threads=threads, keep=function)
        values: Sequence[Any] = results
    else:
        call = lane.inside.start_c(
            function.address, False, list(items), out_stride=function.out_bytes, threads=threads, keep=function
        )
        values = []
    try:
        call.wait(-1)
    except BaseException:
        call.cancel()
        call.wait(-1)  # elements that run write into our buffers
        raise
    if function.signature != DOUBLES:
        values = call.outputs()
    raw = call.statuses() if function.signature != DOUBLES else b""  # a function of doubles has no way to fail
    failures: dict[int, ItemFailure] = {}
    if raw.strip(b"\0"):
        statuses = array("i", raw)
        failures = {at: _failure(function, at, status) for at, status in enumerate(statuses) if status != 0}
    return Outcomes([Part(0, len(items), values, failures, lambda _position: (0, 0, 1))])


def c_threads(function: CFunction, lane: Lane) -> int:
    """One thread a core for functions that compute; as many as items may run at once for functions that wait."""
    most = min(lane.policy.concurrency, 256)
    return most if function.blocks else max(1, min(os.cpu_count() or 1, most))


def _is_doubles(items: object) -> bool:
    try:
        view = memoryview(items)  # type: ignore[arg-type]
    except TypeError:
        return False
    return view.format == "d" and view.contiguous


def _failure(function: CFunction, position: int, status: int) -> ItemFailure:
    message = f"{function.name} returned {status}"
    return ItemFailure(
        position, Outcome.FAILED, "CStatus", message, "", fingerprint("CStatus", (function.name,), str(status)), 1, 0
    )
