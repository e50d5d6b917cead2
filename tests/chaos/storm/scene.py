"""Scene: a private server, a ledger, a witness file, and the app's producer end, for one storm."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from storm.chaos_app import register
from tidegate import Job, Tidegate
from tidegate.embedded import EmbeddedServer
from tidegate.model.job import Progress
from tidegate.testing.chaos.check import Verdict, check

#: No storm of the short form may take longer than this to end by itself once its faults are over.
PATIENCE_S = 120.0


@dataclass(slots=True)
class Scene:
    """Everything a storm needs; made by :func:`scene`."""

    server: EmbeddedServer
    gate: Tidegate
    folder: Path
    witness: Path

    @property
    def url(self) -> str:
        return self.server.url

    def submit(self, task: str, items: Iterable[object], *, batch_size: int = 100, **options: object) -> Job[object]:
        """Submit a job from this process, under a task name that only the workers know the function of."""
        return self.gate.map(task, items, batch_size=batch_size, **options)  # type: ignore[arg-type]

    def settle(self, job: Job[object], patience_s: float = PATIENCE_S) -> Progress:
        """Wait for the job's end; the storm fails if it does not come."""
        return job.wait(timeout=patience_s)

    def check(self, job: Job[object], submitted: int) -> Verdict:
        return check(self.gate.ledger(), job.id, submitted, self.witness)


@contextmanager
def scene(folder: Path, *, persist: bool = False, port: int | None = None, memory: int = 0) -> Iterator[Scene]:
    folder.mkdir(parents=True, exist_ok=True)
    witness = folder / "witness"
    witness.touch()
    os.environ["CHAOS_WITNESS"] = str(witness)
    with EmbeddedServer(folder / "valkey", persist=persist, port=port, max_memory_bytes=memory) as server:
        gate = register(Tidegate(server.url))
        try:
            yield Scene(server, gate, folder, witness)
        finally:
            gate.close()


def until(holds: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait for an event; a storm that waits for one that does not come fails and says which."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.02)
