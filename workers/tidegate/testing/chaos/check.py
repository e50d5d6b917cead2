"""The checker: compares what was submitted, what the witness saw and what the ledger holds, after the manner of Jepsen's
``total-queue`` checker (https://github.com/jepsen-io/jepsen, checker.clj)."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from tidegate.ledger.port import Cursor, Ledger
from tidegate.model.outcome import JobState, Outcome
from tidegate.model.wire import decode_results
from tidegate.testing.chaos import witness


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one job's items. ``valid`` is the promise: nothing lost, nothing committed twice, sums add up."""

    submitted: int
    executed: int
    executed_again: int
    committed: int
    committed_twice: int
    lost: int
    unexpected: int
    counters_off: int
    ended: bool
    stale_refused: int
    lost_leases: int

    @property
    def valid(self) -> bool:
        return self.ended and not (self.lost or self.committed_twice or self.unexpected or self.counters_off)

    def __str__(self) -> str:
        facts = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in asdict(self).items())
        return f"{'valid' if self.valid else 'NOT VALID'}: {facts}"


def check(ledger: Ledger, job_id: str, submitted: int, witness_file: str | Path | None = None) -> Verdict:
    """Read everything that the ledger committed of a job, and hold it against the submission and the witness.

    ``lost``: submitted items without a committed result or dead letter. ``committed_twice``: more than one of them for one
    item. ``unexpected``: an index that was never submitted, or a success that the witness never saw run.
    ``counters_off``: by how much the job's counters differ from a recount.
    """
    committed: Counter[int] = Counter()
    succeeded: Counter[int] = Counter()
    cursor = Cursor()
    while True:
        blocks, cursor = ledger.read_results(job_id, cursor, count=64)
        if not blocks:
            break
        for block in blocks:
            succeeded.update(index for index, _value in decode_results(block))
    outcomes: Counter[Outcome] = Counter({Outcome.SUCCEEDED: sum(succeeded.values())})
    for record in ledger.read_failures(job_id):
        committed[record.index] += 1
        outcomes[record.outcome] += 1
    committed.update(succeeded)
    progress = ledger.progress(job_id)
    seen = witness.read(witness_file, job_id) if witness_file else None
    unexpected = sum(1 for index in committed if not 0 <= index < submitted)
    if seen is not None:
        unexpected += sum(1 for index in succeeded if index not in seen.by_index)
    counted = {outcome: progress.outcomes.get(outcome, 0) for outcome in Outcome}
    off = sum(abs(counted[outcome] - outcomes[outcome]) for outcome in Outcome)
    return Verdict(
        submitted=submitted,
        executed=seen.executed if seen else -1,
        executed_again=seen.executed_again if seen else -1,
        committed=sum(committed.values()),
        committed_twice=sum(count - 1 for count in committed.values()),
        lost=sum(1 for index in range(submitted) if index not in committed),
        unexpected=unexpected,
        counters_off=off + abs(progress.total - submitted) + progress.pending,
        ended=progress.state in (JobState.DONE, JobState.CANCELLED),
        stale_refused=progress.stale_refused,
        lost_leases=progress.lost_leases,
    )
