"""JobReader: the half of the Redis ledger that looks at jobs and changes nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from tidegate.ledger import keys, reading
from tidegate.ledger.calls import Caller
from tidegate.ledger.index import JobIndex
from tidegate.ledger.port import Cursor
from tidegate.ledger.presence import Presence
from tidegate.ledger.replies import progress_from
from tidegate.model.job import Progress
from tidegate.model.outcome import FailureRecord

_EVENT_JOBS = 10_000


class JobReader:
    """Safe to share between threads. It remembers the last event seen of each of the last 10,000 jobs."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._index = JobIndex(caller)
        self._presence = Presence(caller)
        self._events: OrderedDict[str, int] = OrderedDict()

    def progress(self, job_id: str) -> Progress:
        """See the port."""
        found = self._look(job_id)
        if found is None:
            raise self._presence.missing(job_id)
        return found

    def jobs(self, limit: int = 50) -> list[Progress]:
        """See the port."""
        found: list[Progress] = []
        start = 0
        while len(found) < limit:
            page = self._index.newest(start, limit)
            found += [progress for progress in map(self._look, page) if progress is not None]
            if len(page) < limit:
                break
            start += len(page)
        return found[:limit]

    def stats(self, job_id: str) -> dict[str, int]:
        """See the port."""
        return reading.stats(self._caller, job_id)

    def errors(self, job_id: str) -> dict[str, int]:
        """See the port."""
        return {name: int(count) for name, count in reading.texts(self._caller, job_id, "errors").items()}

    def traces(self, job_id: str) -> dict[str, str]:
        """See the port."""
        return reading.texts(self._caller, job_id, "traces")

    def read_results(
        self, job_id: str, cursor: Cursor, *, count: int = 16, block_ms: int | None = None
    ) -> tuple[list[bytes], Cursor]:
        """See the port."""
        return reading.blocks(self._caller, keys.job_key(job_id, "results"), cursor, count=count, block_ms=block_ms)

    def read_failures(self, job_id: str) -> Iterator[FailureRecord]:
        """See the port."""
        return reading.failures(self._caller, keys.job_key(job_id, "dead"))

    def read_outcomes(
        self, job_id: str, results: Cursor, failures: Cursor, *, count: int = 64, block_ms: int | None = None
    ) -> tuple[list[bytes], Cursor, list[FailureRecord], Cursor]:
        """See the port."""
        return reading.outcomes(self._caller, job_id, results, failures, count=count, block_ms=block_ms)

    def wait_event(self, job_id: str, *, block_ms: int) -> None:
        """See the port. Events since this ledger's last ``progress`` of the job count: none is missed in between."""
        since = self._events.get(job_id)
        if since is None:
            self.progress(job_id)
            since = self._events[job_id]
        last = reading.event(self._caller, keys.job_key(job_id, "events"), since, block_ms=block_ms)
        if last is not None:
            self._events[job_id] = last

    def _look(self, job_id: str) -> Progress | None:
        found = progress_from(job_id, self._caller.job("progress", job_id))
        if found is None:
            return None
        progress, event = found
        if progress.spec is not None:
            self._presence.knows(job_id, progress.spec.ttl_s)
        self._events[job_id] = event
        self._events.move_to_end(job_id)
        while len(self._events) > _EVENT_JOBS:
            self._events.popitem(last=False)
        return progress
