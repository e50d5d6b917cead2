"""JobFacts: what a process has to know of a job beyond its batches, asked of the ledger once and only when it matters."""

from __future__ import annotations

from collections import OrderedDict

from tidegate.errors import LedgerError
from tidegate.ledger.port import Ledger
from tidegate.model.job import JobSpec

_REMEMBERED = 1000


class JobFacts:
    """The specs of the last thousand jobs. A ledger that does not answer makes no error here: the usual is assumed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._specs: OrderedDict[str, JobSpec | None] = OrderedDict()

    def keeps(self, job_id: str) -> bool:
        """Whether the job's results are kept."""
        spec = self._spec(job_id)
        return spec is None or spec.keep_results

    def origin(self, job_id: str) -> str:
        """The line that enqueued the job, as the last line of a trace; empty when it is not known."""
        spec = self._spec(job_id)
        if spec is None or not spec.origin.file:
            return ""
        origin = spec.origin
        text = f"  # enqueued at {origin.file}:{origin.line} in {origin.function or '?'}"
        return f"{text}, by job {origin.parent_job}" if origin.parent_job else text

    def _spec(self, job_id: str) -> JobSpec | None:
        if job_id not in self._specs:
            try:
                self._specs[job_id] = self._ledger.progress(job_id).spec
            except LedgerError:
                return None
            while len(self._specs) > _REMEMBERED:
                self._specs.popitem(last=False)
        return self._specs.get(job_id)
