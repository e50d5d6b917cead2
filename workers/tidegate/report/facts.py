"""Facts: everything that a report of one job stands on, read once and frozen.

What is said of items comes from the ledger and is exact. What is said of workers comes from the telemetry stream, is a
sample, and is kept apart in ``Facts.sampled``. Both are read while the job still runs, and no collector is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tidegate.clock import SystemClock
from tidegate.errors import PayloadError
from tidegate.ledger.port import Ledger
from tidegate.model.job import JobSpec, Origin, Progress
from tidegate.model.outcome import FailureRecord, JobState, Outcome
from tidegate.model.plain import visible, visible_block
from tidegate.model.stats import Distribution, distributions
from tidegate.model.wire import decode_argument
from tidegate.report.sampled import SampledFacts, TelemetrySource, sample

#: Dead letters looked at to group failures; error counts by type cover all of them anyway.
MAX_LETTERS = 10_000
#: Groups of failures, and dead letters of each, that a report shows.
MAX_GROUPS = 20
MAX_SAMPLES = 3

UNSUCCESSFUL = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED)

#: A frame of a trace: the executor's own form, innermost first, or Python's, innermost last.
_OWN_FRAME = re.compile(r"^  at (?P<function>[^\n]+?) \((?P<file>[^\n]+):(?P<line>\d{1,9})\)$", re.MULTILINE)
_PYTHON_FRAME = re.compile(
    r'^ *File "(?P<file>[^"\n]+)", line (?P<line>\d{1,9})(?:, in (?P<function>[^\n]+))?$', re.MULTILINE
)
_LIBRARY = re.compile(r"^<|/site-packages/|/dist-packages/|/lib/python3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One dead letter. ``arguments`` is the item as Python would print it, made safe to show and cut."""

    index: int
    outcome: Outcome
    message: str
    attempts: int
    arguments: str
    run_ns: int = 0
    history: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Dead letters with one fingerprint. ``file`` and ``line``: its innermost frame that is not a library's."""

    fingerprint: str
    error_type: str
    count: int
    file: str = ""
    line: int = 0
    function: str = ""
    traceback: str = ""
    samples: tuple[Sample, ...] = ()

    @property
    def place(self) -> str:
        """``file:line``, or nothing."""
        return f"{self.file}:{self.line}" if self.file else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """``memory_soft``: share of its memory limit at which a worker stops claiming. ``live_workers``: processes that serve
    the job's queue now; ``live_elsewhere``: those that serve only others; None when nobody could be asked."""

    progress: Progress
    taken_wall_ms: int
    times: dict[str, Distribution] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    groups: tuple[FailureGroup, ...] = ()
    letters_read: int = 0
    letters_cut: bool = False
    live_workers: int = 0
    live_elsewhere: int = 0
    sampled: SampledFacts = field(default_factory=SampledFacts)
    memory_soft: float = 0.8

    @property
    def spec(self) -> JobSpec | None:
        return self.progress.spec

    @property
    def origin(self) -> Origin:
        return self.progress.spec.origin if self.progress.spec else Origin()

    @property
    def begun_ms(self) -> int:
        return self.progress.started_ms or self.progress.created_ms

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first claim to the end, or to now."""
        end_ms = self.progress.finished_ms or self.progress.now_ms
        return max(0, end_ms - self.begun_ms) / 1e3 if self.begun_ms else 0.0

    @property
    def unsuccessful(self) -> int:
        """Items that failed, timed out or crashed; cancelling is somebody's wish and not counted."""
        return sum(self.progress.outcomes.get(outcome, 0) for outcome in UNSUCCESSFUL)

    @property
    def tried(self) -> int:
        """Items that ended by being run."""
        return self.unsuccessful + self.progress.outcomes.get(Outcome.SUCCEEDED, 0)

    @property
    def items_per_batch(self) -> float:
        return self.progress.total / self.progress.batches if self.progress.batches else 0.0

    @property
    def average_running(self) -> float:
        """Items at once, from the ledger: all run time over the job's time (exact for an ended job)."""
        running = self.times.get("running", Distribution())
        return running.sum_ns / (self.elapsed_s * 1e9) if self.elapsed_s else 0.0

    @property
    def efficiency(self) -> float | None:
        """Average over configured concurrency, 0 to 1; None when no worker was sampled."""
        configured = self.sampled.concurrency_configured
        return min(1.0, self.average_running / configured) if configured else None


def collect(ledger: Ledger, telemetry: TelemetrySource | None, job_id: str, *, memory_soft: float = 0.8) -> Facts:
    """Read the facts of a job. ``JobNotFound`` if there is none; without telemetry the sampled part is empty."""
    progress = ledger.progress(job_id)
    end_ms = progress.finished_ms or progress.now_ms
    live, elsewhere = _live(ledger, progress.queue)
    groups, read, cut = _groups(ledger, job_id) if _has_letters(progress) else ((), 0, False)
    return Facts(
        progress=progress,
        taken_wall_ms=progress.now_ms or SystemClock().wall_ms(),
        times=distributions(ledger.stats(job_id)),
        errors=ledger.errors(job_id),
        groups=groups,
        letters_read=read,
        letters_cut=cut,
        live_workers=live,
        live_elsewhere=elsewhere,
        sampled=sample(telemetry, progress.task, progress.queue, progress.started_ms or end_ms, end_ms),
        memory_soft=memory_soft,
    )


def _has_letters(progress: Progress) -> bool:
    return progress.done > progress.outcomes.get(Outcome.SUCCEEDED, 0)


def _live(ledger: Ledger, queue: str) -> tuple[int, int]:
    queues = [facts.get("queues") for facts in ledger.workers()]
    here = sum(1 for names in queues if names is None or queue in re.split(r"[,\s]+", names))
    return here, len(queues) - here


def _groups(ledger: Ledger, job_id: str) -> tuple[tuple[FailureGroup, ...], int, bool]:
    letters: Iterator[FailureRecord] = ledger.read_failures(job_id)
    by_fingerprint: dict[str, tuple[int, list[FailureRecord]]] = {}
    read = 0
    for letter in islice(letters, MAX_LETTERS):
        read += 1
        count, samples = by_fingerprint.setdefault(letter.fingerprint or letter.error_type, (0, []))
        if len(samples) < MAX_SAMPLES:
            samples.append(letter)
        by_fingerprint[letter.fingerprint or letter.error_type] = (count + 1, samples)
    cut = read == MAX_LETTERS and next(letters, None) is not None
    largest = sorted(by_fingerprint.items(), key=lambda entry: -entry[1][0])[:MAX_GROUPS]
    traces = ledger.traces(job_id) if largest else {}
    groups = tuple(_group(name, count, samples, traces.get(name, "")) for name, (count, samples) in largest)
    return groups, read, cut


def _group(fingerprint: str, count: int, letters: Sequence[FailureRecord], trace: str) -> FailureGroup:
    frame = _place(trace)
    return FailureGroup(
        fingerprint=visible(fingerprint, 64),
        error_type=visible(letters[0].error_type, 200),
        count=count,
        file=visible(frame["file"], 300) if frame else "",
        line=int(frame["line"]) if frame else 0,
        function=visible(frame["function"] or "", 200) if frame else "",
        traceback=visible_block(trace),
        samples=tuple(_sample(letter) for letter in letters),
    )


def _place(trace: str) -> re.Match[str] | None:
    """The innermost frame that is not a library's; the innermost of all when every one is."""
    frames = list(_OWN_FRAME.finditer(trace)) or list(_PYTHON_FRAME.finditer(trace))[::-1]
    own = (frame for frame in frames if not _LIBRARY.search(frame["file"]))
    return next(own, frames[0] if frames else None)


def _sample(letter: FailureRecord) -> Sample:
    return Sample(
        index=letter.index,
        outcome=letter.outcome,
        message=visible(letter.message, 500),
        attempts=letter.attempts,
        arguments=visible(_arguments(letter.arguments), 300),
        run_ns=letter.run_ns,
        history=tuple(visible(line, 300) for line in letter.history[:16]),
    )


def _arguments(data: bytes) -> str:
    try:
        value: Any = decode_argument(data)
    except PayloadError as error:
        return f"(cannot be decoded: {error.cause})"
    return repr(value)


def is_waiting(progress: Progress) -> bool:
    """Whether the job has work that somebody could take now."""
    held = progress.paused or progress.ended or progress.state is JobState.PARKED
    return not held and progress.ready_batches > 0
