"""Reports for the web: made by whoever starts the collector (a report stands above it), kept for a moment, one at a time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

KEEP_S = 2.0
KEEP = 32


class ReportView(Protocol):
    """What the pages need of a report."""

    def to_dict(self) -> dict[str, Any]: ...
    def to_fragment(self) -> str: ...
    def to_html(self) -> str: ...


class ReportCache:
    """The newest reports, each at most ``KEEP_S`` seconds old, so that reloading a page costs the ledger little."""

    def __init__(self, make: Callable[[str], ReportView]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, ReportView]] = OrderedDict()

    def get(self, job_id: str) -> ReportView:
        """The report of a job; ledger errors pass through."""
        with self._lock:
            kept = self._kept.get(job_id)
            if kept is not None and time.monotonic() - kept[0] < KEEP_S:
                return kept[1]
            report = self._make(job_id)
            self._kept[job_id] = (time.monotonic(), report)
            self._kept.move_to_end(job_id)
            while len(self._kept) > KEEP:
                self._kept.popitem(last=False)
            return report
