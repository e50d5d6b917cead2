"""ItemOutcome and Outcomes: what ``Executor.map`` and ``stream`` hand out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from tidegate.errors import JobFailed
from tidegate.executor.failure import ItemFailure, capture
from tidegate.executor.host import Run, Settled
from tidegate.model.outcome import Outcome


class KeepTraceback(str):
    """An origin that asks :func:`capture_error` to leave the exception's frames alone, because it will be raised."""

    __slots__ = ()


@dataclass(slots=True)
class CapturedFailure(ItemFailure):
    """An :class:`ItemFailure` that also keeps the exception, without its frames unless it is going to be raised."""

    error: BaseException | None = None


def capture_error(error: BaseException | None, *facts: Any) -> CapturedFailure:
    """As :func:`tidegate.executor.failure.capture`, with the exception."""
    record = capture(error, *facts)
    if error is not None and not isinstance(facts[-2], KeepTraceback):
        error.__traceback__ = None
    return CapturedFailure(
        record.position,
        record.outcome,
        record.error_type,
        record.message,
        record.traceback,
        record.fingerprint,
        record.attempts,
        record.run_ns,
        record.history,
        error,
    )


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """How one item ended. ``value`` of a success, or of the fallback when ``fell_back``; ``error`` of anything else.

    ``attempts``: executions. ``run_s``: seconds inside the function, all attempts together. ``waited_s``: seconds in line,
    for limits and between attempts. ``trace``: one asynchronous stack as text, for failures.
    """

    index: int
    outcome: Outcome
    value: Any = None
    error: BaseException | None = None
    attempts: int = 0
    run_s: float = 0.0
    waited_s: float = 0.0
    trace: str = ""
    fell_back: bool = False

    @property
    def ok(self) -> bool:
        """Whether the function itself succeeded."""
        return self.outcome is Outcome.SUCCEEDED

    def unwrap(self) -> Any:
        """The value, or raises the error.

        >>> ItemOutcome(0, Outcome.SUCCEEDED, 42).unwrap()
        42
        """
        if self.ok or self.fell_back:
            return self.value
        raise self.error if self.error is not None else JobFailed(f"item {self.index} {self.outcome.value}")


#: (run_ns, wait_ns, attempts) of a position of one part.
Times = Callable[[int], tuple[int, int, int]]


class Part:
    """The outcomes of one run: positions ``0 … n - 1`` are items ``first … first + n - 1`` of the whole."""

    __slots__ = ("failures", "first", "n", "recovered", "times", "values")

    def __init__(
        self, first: int, n: int, values: Sequence[Any], failures: dict[int, ItemFailure], times: Times
    ) -> None:
        self.first = first
        self.n = n
        self.values = values
        self.failures = failures
        self.times = times
        self.recovered: dict[int, Any] = {}

    @classmethod
    def of_run(cls, first: int, n: int, settled: Settled, run: Run) -> Part:
        """The part of a run that settled in one take."""
        failures = {failure.position: failure for failure in settled.failures}
        values: Sequence[Any] = settled.ok_values
        if failures or settled.ok_positions is not None:
            spread: list[Any] = [None] * n
            positions = settled.ok_positions
            if positions is None:
                positions = list(range(settled.ok_first, settled.ok_first + len(values)))
            for position, value in zip(positions, values, strict=True):
                spread[position] = value
            values = spread
        return cls(first, n, values, failures, run.times)

    def outcome(self, position: int) -> ItemOutcome:
        failure = self.failures.get(position)
        run_ns, wait_ns, attempts = self.times(position)
        if failure is None:
            return ItemOutcome(
                self.first + position,
                Outcome.SUCCEEDED,
                self.values[position],
                None,
                attempts,
                run_ns / 1e9,
                wait_ns / 1e9,
            )
        fell_back = position in self.recovered
        return ItemOutcome(
            self.first + position,
            failure.outcome,
            self.recovered.get(position),
            error_of(failure),
            failure.attempts,
            run_ns / 1e9,
            wait_ns / 1e9,
            failure.traceback,
            fell_back,
        )


def error_of(failure: ItemFailure) -> BaseException:
    """The exception of a failure, or one that says what happened when there was none."""
    error = getattr(failure, "error", None)
    if isinstance(error, BaseException):
        return error
    return JobFailed(f"{failure.error_type}: {failure.message}", outcome=failure.outcome)


class Outcomes(Sequence[ItemOutcome]):
    """Outcomes in the order of the items. Reads like a list; an :class:`ItemOutcome` is made when it is looked at."""

    __slots__ = ("_n", "_parts")

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = list(parts)
        self._n = sum(part.n for part in self._parts)

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> ItemOutcome: ...
    @overload
    def __getitem__(self, index: slice) -> list[ItemOutcome]: ...
    def __getitem__(self, index: int | slice) -> ItemOutcome | list[ItemOutcome]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(self._n))]
        position = index + self._n if index < 0 else index
        if not 0 <= position < self._n:
            raise IndexError("there is no outcome of that index")
        low, high = 0, len(self._parts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._parts[middle].first <= position else (low, middle - 1)
        part = self._parts[low]
        return part.outcome(position - part.first)

    def __iter__(self) -> Iterator[ItemOutcome]:
        for part in self._parts:
            for position in range(part.n):
                yield part.outcome(position)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._n:,} outcomes, {self.succeeded:,} succeeded>"

    @property
    def values(self) -> list[Any]:
        """Values in order; of items that failed the fallback's value, or ``None``."""
        found: list[Any] = []
        for part in self._parts:
            if not part.failures:
                found.extend(part.values)
                continue
            values = list(part.values)
            for position in part.failures:
                values[position] = part.recovered.get(position)
            found.extend(values)
        return found

    def raw(self, index: int) -> Any:
        """What is stored for an item, whether or not it succeeded: the output of a C function that failed, else ``None``."""
        for part in self._parts:
            if part.first <= index < part.first + part.n:
                return part.values[index - part.first]
        raise IndexError("there is no outcome of that index")

    @property
    def succeeded(self) -> int:
        """Items whose function succeeded."""
        return self._n - self.failed

    @property
    def failed(self) -> int:
        """Items with any other outcome."""
        return sum(len(part.failures) for part in self._parts)

    @property
    def failures(self) -> list[ItemOutcome]:
        """The outcomes that are no success, in order."""
        return [part.outcome(position) for part in self._parts for position in sorted(part.failures)]

    def counts(self) -> dict[Outcome, int]:
        """Items by outcome."""
        counts = {Outcome.SUCCEEDED: self.succeeded} if self.succeeded else {}
        for part in self._parts:
            for failure in part.failures.values():
                counts[failure.outcome] = counts.get(failure.outcome, 0) + 1
        return counts
