"""C functions in the executor: arrays in, arrays out, no GIL in between; their runs look like those of other functions."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from tidegate.errors import CFunctionFailed
from tidegate.executor import _native
from tidegate.executor.failure import OUTCOMES, REASONS, WITHOUT_ERROR, ItemFailure, fingerprint
from tidegate.executor.host import Lane, Run
from tidegate.executor.kinds import DOUBLES, CFunction
from tidegate.executor.outcomes import CapturedFailure, Part
from tidegate.model.outcome import Outcome


class CRun:
    """Elements of one C function submitted together, with the face of :class:`tidegate.executor.host.Run`."""

    __slots__ = ("_call", "_function", "_origin", "_results", "n")

    def __init__(self, lane: Lane, function: CFunction, items: Sequence[Any], origin: str | None) -> None:
        """``items``: numbers (a list, or a buffer of doubles, which is not copied), or bytes, as the function takes them."""
        threads = c_threads(function, lane)
        self.n = len(items)
        self._function = function
        self._origin = origin
        self._results: Sequence[Any] | None = None
        if function.signature == DOUBLES:
            source = items if _is_doubles(items) else array("d", items)
            self._results = array("d", bytes(8 * len(items)))
            self._call = lane.inside.start_c(
                function.address, True, source, out=self._results, threads=threads, keep=function
            )
        else:
            self._call = lane.inside.start_c(
                function.address, False, list(items), out_stride=function.out_bytes, threads=threads, keep=function
            )

    @property
    def done(self) -> bool:
        """Whether every element ended."""
        return self._call.done

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether everything ended within ``timeout_s`` (``None``: however long it takes)."""
        return self._call.wait(-1 if timeout_s is None else max(0, round(timeout_s * 1e9)))

    def cancel(self, message: str = "") -> None:
        """Elements that have not started end as cancelled; what runs in C finishes."""
        self._call.cancel()

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Called once when the last element ended (at once when that has happened)."""
        self._call.add_done_callback(callback)

    def part(self, first: int) -> Part:
        """The outcomes, as items ``first …`` of a whole."""
        values = self._call.outputs() if self._results is None else self._results
        failures: dict[int, ItemFailure] = {facts[0]: self._failure(*facts) for facts in self._call.failures()}
        return Part(first, self.n, values, failures, self._call.times)

    def _failure(
        self, position: int, outcome_code: int, reason: int, status: int, attempts: int, run_ns: int
    ) -> CapturedFailure:
        outcome = OUTCOMES.get(outcome_code, Outcome.CANCELLED)
        name = self._function.name
        error: BaseException | None = None
        if attempts == 0:
            kind, message = WITHOUT_ERROR.get(outcome, ("Unknown", "no error was recorded"))
        elif outcome is Outcome.TIMED_OUT and status == 0:
            kind, message = "tidegate.executor.ItemTimeout", f"{name} returned after its timeout"
            error = _native.ItemTimeout(message)
        else:
            kind, message = "tidegate.errors.CFunctionFailed", f"{name} returned {status}"
            error = CFunctionFailed(message, status=status)
        cause = fingerprint(kind, (name,), str(status))
        trace = self._trace(f"{kind}: {message}", reason, attempts)
        return CapturedFailure(position, outcome, kind, message, trace, cause, attempts, run_ns, (), error)

    def _trace(self, heading: str, reason: int, attempts: int) -> str:
        lines = [heading, f"  at {self._function.name} (machine code at {self._function.address:#x})"]
        if attempts > 1:
            lines.append(f"  # {attempts} attempts")
        if reason > 1 and reason in REASONS:
            lines.append(f"  # no further attempt: {REASONS[reason]}")
        if self._origin:
            lines.append(f"  # enqueued at {self._origin}")
        return "\n".join(lines)


#: What :meth:`Executor.map` and its siblings wait for.
AnyRun = Run | CRun


def part_of(first: int, n: int, run: AnyRun) -> Part:
    """The outcomes of a run that is done, as items ``first … first + n - 1`` of a whole."""
    return run.part(first) if isinstance(run, CRun) else Part.of_run(first, n, run.take(), run)


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
