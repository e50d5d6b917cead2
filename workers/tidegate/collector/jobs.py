"""JobsView: the newest jobs as the ledger has them, looked at every few seconds, so that no page or scrape asks it again."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from tidegate.ledger.port import Ledger
from tidegate.model.job import Progress
from tidegate.model.outcome import JobState

#: The newest jobs that are looked at.
MAX_JOBS = 100


@dataclass(frozen=True, slots=True)
class JobsSnapshot:
    """``cut``: there may be older jobs than these."""

    jobs: tuple[Progress, ...] = ()
    cut: bool = False

    def by_state(self) -> dict[str, int]:
        """Number of jobs in each state; ``paused`` counts besides."""
        found = Counter({str(state): 0 for state in JobState})
        found.update(str(job.state) for job in self.jobs)
        found["paused"] = sum(1 for job in self.jobs if job.paused and not job.ended)
        return dict(found)

    @property
    def ready_batches(self) -> int:
        return sum(job.ready_batches for job in self.jobs if not job.ended)

    @property
    def pending_items(self) -> int:
        return sum(job.pending for job in self.jobs if not job.ended)

    @property
    def pending_bytes(self) -> int:
        return sum(job.pending_bytes for job in self.jobs if not job.ended)

    @property
    def oldest_ready_ms(self) -> int:
        """How long the batch that waits longest for a worker has waited; held jobs do not count."""
        waiting = (job for job in self.jobs if not (job.ended or job.paused or job.state is JobState.PARKED))
        return max((job.oldest_ready_ms for job in waiting if job.ready_batches), default=0)


class JobsView:
    """The snapshot that was taken last."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._snapshot = JobsSnapshot()

    def refresh(self) -> None:
        """Look again. Raises ledger errors; the last snapshot stays."""
        jobs = tuple(self._ledger.jobs(MAX_JOBS))
        with self._lock:
            self._snapshot = JobsSnapshot(jobs, cut=len(jobs) == MAX_JOBS)

    def snapshot(self) -> JobsSnapshot:
        with self._lock:
            return self._snapshot
