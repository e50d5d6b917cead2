"""What is kept of an item that failed: text, bounded, and nothing that keeps the exception or its frames alive."""

from __future__ import annotations

import functools
import hashlib
import linecache
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, TracebackType

from tidegate.model.outcome import Outcome
from tidegate.model.retry import Retry

MAX_MESSAGE = 2_000
MAX_TRACEBACK = 8_000
MAX_FRAMES = 40

#: enum tg_outcome of the core, by number.
OUTCOMES: dict[int, Outcome] = {
    1: Outcome.SUCCEEDED,
    2: Outcome.FAILED,
    3: Outcome.TIMED_OUT,
    4: Outcome.CANCELLED,
    5: Outcome.CRASHED,
}

#: enum tg_reason of the core: why there was no (further) attempt, in words for people.
REASONS: dict[int, str] = {
    1: "not to be retried",
    2: "attempts used up",
    3: "deadline passed",
    4: "retry budget spent",
    5: "circuit open",
    6: "cancelled",
    7: "drained",
    8: "deferred",
    9: "executor closed",
}

WITHOUT_ERROR: dict[Outcome, tuple[str, str]] = {
    Outcome.FAILED: ("CircuitOpen", "refused without an attempt: the circuit breaker is open"),
    Outcome.TIMED_OUT: ("DeadlinePassed", "its deadline passed while it waited"),
    Outcome.CANCELLED: ("Cancelled", "cancelled before it ran"),
    Outcome.CRASHED: ("ProcessCrashed", "the process died while it ran this item, too often to try again"),
}

_HERE = str(Path(__file__).parent)
_NOISE = re.compile(r"""'[^']*'|"[^"]*"|0x[0-9a-fA-F]+|\d+""")


@dataclass(slots=True)
class ItemFailure:
    """An item that did not succeed. ``history`` has a line for each attempt before the last."""

    position: int
    outcome: Outcome
    error_type: str
    message: str
    traceback: str
    fingerprint: str
    attempts: int
    run_ns: int
    history: tuple[str, ...] = ()


def message_of(error: BaseException, limit: int = MAX_MESSAGE) -> str:
    """The error's text, whatever its ``__str__`` does, cut at ``limit`` characters.

    >>> message_of(ValueError("no such user"))
    'no such user'
    """
    try:
        text = str(error)
    except BaseException as second:  # noqa: BLE001 - whatever it raises, it has no text
        return f"<{_name(type(second))} in __str__>"
    if not isinstance(text, str):  # a str subclass with a hostile slice is still text
        return "<unreadable>"
    text = str.__str__(text)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


def type_name(error: BaseException) -> str:
    """``module.Name``, without the module for built-in errors.

    >>> type_name(ValueError()), type_name(TimeoutError())
    ('ValueError', 'TimeoutError')
    """
    return _name(type(error))


def _name(kind: type) -> str:
    module = getattr(kind, "__module__", None)
    name = getattr(kind, "__qualname__", "?")
    if not isinstance(module, str) or module in ("builtins", "__main__"):
        return str(name)
    return f"{module}.{name}"


def retry_after_s(error: BaseException) -> float:
    """Seconds that the other side asked to wait: ``error.retry_after`` or the Retry-After header of ``error.response``.

    >>> from tidegate.errors import RetryAfter
    >>> retry_after_s(RetryAfter(1.5)), retry_after_s(ValueError())
    (1.5, 0.0)
    """
    try:
        delay = getattr(error, "retry_after", None)
        if delay is None:
            headers = getattr(getattr(error, "response", None), "headers", None)
            delay = headers.get("Retry-After") if headers is not None else None
        return max(0.0, min(float(delay), 86_400.0)) if delay is not None else 0.0
    except BaseException:  # noqa: BLE001 - attributes of a stranger: whatever they do, there is simply no delay
        return 0.0


#: An item's key under each keyed limit of its lane, in order; ``None`` where it is not bound.
Keys = tuple[int | None, ...]


def classifier(
    retry: Retry, on_retry_after: Callable[[float, Keys], None] | None = None
) -> Callable[[BaseException, int, int, bool, Keys], tuple[bool, int, str | None]]:
    """What the C loop asks about an attempt that failed: (to be retried?, least delay in ns, line for the history)."""
    keeps_history = retry.attempts > 1

    def classify(
        error: BaseException, attempt: int, run_ns: int, timed_out: bool, keys: Keys = ()
    ) -> tuple[bool, int, str | None]:
        try:
            wanted = retry.wants(error)
        except BaseException:  # noqa: BLE001 - a predicate that fails answers nothing: do not retry what nobody understands
            wanted = False
        delay_s = retry_after_s(error)
        if delay_s > 0 and on_retry_after is not None:
            on_retry_after(delay_s, keys)
        line = None
        if keeps_history and attempt < retry.attempts:
            line = f"attempt {attempt}: {type_name(error)}: {message_of(error, 200)} (ran {run_ns / 1e6:.1f} ms)"
        return wanted, round(delay_s * 1e9), line

    return classify


def capture(
    error: BaseException | None,
    position: int,
    outcome_code: int,
    reason: int,
    attempts: int,
    run_ns: int,
    history: list[str] | None,
    origin: str | None,
    function: object,
) -> ItemFailure:
    """The record of an item that ended without success. Never raises for what the error or its frames do."""
    outcome = OUTCOMES.get(outcome_code, Outcome.FAILED)
    earlier = tuple(history[: max(0, attempts - 1)]) if history else ()
    if error is None:
        kind, message, cause = _without_error(outcome)
        if history:  # it had attempts, and was given up while it waited for the next
            message = f"{message}; last {history[-1]}"
            earlier = tuple(history)
        return ItemFailure(position, outcome, kind, message, _tail(origin), cause, attempts, run_ns, earlier)
    kind = type_name(error)
    message = message_of(error)
    if outcome is Outcome.TIMED_OUT and not message:
        message = f"ran longer than the timeout ({run_ns / 1e9:.3g} s in all)"
    frames = _user_frames(error.__traceback__)
    heading = f"{kind}: {message[:500]}"
    text = _text(error, frames, heading=heading, earlier=earlier, reason=reason, origin=origin)
    return ItemFailure(
        position, outcome, kind, message, text, fingerprint(kind, _sites(frames), message), attempts, run_ns, earlier
    )


@functools.cache
def _without_error(outcome: Outcome) -> tuple[str, str, str]:
    """Type, message and fingerprint of an end without an exception; a run of a million items may be cancelled at once."""
    kind, message = WITHOUT_ERROR.get(outcome, ("Unknown", "no error was recorded"))
    return kind, message, fingerprint(kind, (), message)


def fingerprint(kind: str, sites: tuple[str, ...], message: str) -> str:
    """16 hex digits that are the same for failures of the same cause: type, innermost three frames, message without its
    numbers and quoted parts.

    >>> fingerprint("KeyError", (), "no user 'ann' (17)") == fingerprint("KeyError", (), "no user 'bob' (4)")
    True
    """
    plain = _NOISE.sub("#", message[:500])
    return hashlib.blake2b("\n".join((kind, *sites, plain)).encode("utf-8", "replace"), digest_size=8).hexdigest()


def _user_frames(trace: TracebackType | None) -> list[tuple[CodeType, int]]:
    frames: list[tuple[CodeType, int]] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith(_HERE):
            frames.append((code, trace.tb_lineno))
        trace = trace.tb_next
    return frames


def _sites(frames: list[tuple[CodeType, int]]) -> tuple[str, ...]:
    return tuple(f"{code.co_filename}:{code.co_qualname}:{line}" for code, line in frames[-3:])


def _text(
    error: BaseException,
    frames: list[tuple[CodeType, int]],
    *,
    heading: str,
    earlier: tuple[str, ...],
    reason: int,
    origin: str | None,
) -> str:
    """One asynchronous stack, innermost frame first: where it failed, who awaited that, earlier attempts, who enqueued it."""
    lines = [heading]
    for code, line in reversed(frames[-MAX_FRAMES:]):
        lines.append(f"  at {code.co_qualname} ({code.co_filename}:{line})")
        source = _source_line(code.co_filename, line)
        if source:
            lines.append(f"       {source}")
    for label, other in (("caused by", error.__cause__), ("while handling", error.__context__)):
        if other is not None and not (label == "while handling" and error.__suppress_context__):
            lines.append(f"  {label} {type_name(other)}: {message_of(other, 300)}")
            for code, line in reversed(_user_frames(other.__traceback__)[-3:]):
                lines.append(f"    at {code.co_qualname} ({code.co_filename}:{line})")
            break
    lines.extend(f"  # {line}" for line in earlier)
    if reason in REASONS and reason != 1:
        lines.append(f"  # no further attempt: {REASONS[reason]}")
    tail = _tail(origin)
    body = "\n".join(lines)
    return (body[: MAX_TRACEBACK - len(tail) - 2] + "\n" + tail).rstrip("\n")


def _source_line(filename: str, line: int) -> str:
    try:
        return linecache.getline(filename, line).strip()[:160]
    except Exception:  # noqa: BLE001 - the source is decoration
        return ""


def _tail(origin: str | None) -> str:
    return f"  # enqueued at {origin}"[:500] if origin else ""


def placeholder(position: int, outcome_code: int) -> ItemFailure:
    """Stands in when even capturing failed (out of memory, say): the item is still counted."""
    outcome = OUTCOMES.get(outcome_code, Outcome.FAILED)
    return ItemFailure(position, outcome, "Unrecorded", "the failure could not be recorded", "", "0" * 16, 0, 0)
