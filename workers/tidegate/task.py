"""Task: a function with its policy, and the ways to apply it to many items."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypedDict, TypeVar, Unpack

from tidegate.errors import ConfigurationError
from tidegate.model.job import Origin
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry
from tidegate.model.wire import Shape
from tidegate.producer.calls import Call
from tidegate.producer.drive import adrive, drive
from tidegate.producer.sources import known_length

if TYPE_CHECKING:
    from tidegate.app import Tidegate
    from tidegate.job import Job

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")

#: The ledger counts an item's executions in a byte.
_MOST_ATTEMPTS = 255


class MapOptions(TypedDict, total=False):
    """What one submission may set.

    ``id``: a submission id of your choice. The same id again is the same job: a producer that was killed goes on where it
    stopped, and a finished submission is found, not repeated; the items must come in the same order.
    ``batch_size``: items a batch (default: adapts towards ``target_batch_s`` of work). ``queue``: where its tickets go.
    ``keep_results``: whether values are stored for ``Job.results()``. ``ttl_s``: seconds for which the ended job is kept.
    ``patience_s``: seconds to wait at the high-water mark before ``LedgerFull`` (default: for ever).
    ``durable``: ``"memory"`` (default) returns when the ledger has everything; ``"fsync"`` when it is on the server's disk too,
    so that it survives a ``kill -9`` of the server; ``LedgerUnsuitable``, before anything is written, if the server keeps no
    append-only file.
    """

    id: str
    batch_size: int
    queue: str
    keep_results: bool
    ttl_s: float
    patience_s: float
    durable: Literal["memory", "fsync"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefaults:
    """What a task's submissions use unless they say otherwise. ``None``: the setting of the app."""

    queue: str | None = None
    batch_size: int | None = None
    keep_results: bool = True


class Task(Generic[P, R, V]):
    """Made by ``@gate.task``. Calling it calls the plain function; ``map`` and ``starmap`` submit a job.

    ``function``: what is applied to each item. ``policy``: how. ``name``: what the ledger and the workers call it.
    """

    __name__: str  # the function's, by functools.update_wrapper

    def __init__(
        self,
        gate: Tidegate,
        function: Callable[P, R],
        *,
        name: str,
        policy: TaskPolicy,
        defaults: TaskDefaults | None = None,
    ) -> None:
        self.gate = gate
        self.function = function
        self.name = name
        self.policy = policy
        self.defaults = defaults or TaskDefaults()
        self.is_async = inspect.iscoroutinefunction(function)
        functools.update_wrapper(self, function)

    @property
    def queue(self) -> str:
        """The queue of its tickets."""
        return self.defaults.queue or self.gate.settings.queue

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The plain function, here and now: no queue, no limits, no retries."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Call[V]:
        """One call: ``fetch.submit("https://…").result()``. Calls made close together travel as one batch.

        Returns at once; the call is on its way. ``result(timeout)`` gives the value, or raises ``JobFailed`` with the error,
        the trace and the attempts. ``PayloadError`` when the arguments cannot be sent. For many items use ``map``: it
        streams, stops at the high-water mark, and makes one job of them.
        """
        return self.gate.call(self, args, kwargs)

    async def asubmit(self, *args: P.args, **kwargs: P.kwargs) -> V:
        """``submit`` for coroutines: waits for the value without blocking the loop."""
        value: V = await asyncio.wrap_future(self.gate.call(self, args, kwargs))
        return value

    def map(self, items: Iterable[Any] | AsyncIterable[Any], **options: Unpack[MapOptions]) -> Job[V]:
        """Submit ``function(item)`` for every item and return the job.

        ``items`` is read lazily, a batch at a time, and no faster than workers keep up. Returns when the last item is in
        the ledger. ``PayloadError`` names an item that cannot be sent; ``LedgerError`` says what the server refused.
        """
        return self._map(items, Shape.ONE, options, self.gate.origin())

    def starmap(self, items: Iterable[Any] | AsyncIterable[Any], **options: Unpack[MapOptions]) -> Job[V]:
        """As ``map``, for ``function(*item)``."""
        return self._map(items, Shape.STAR, options, self.gate.origin())

    def amap(
        self, items: Iterable[Any] | AsyncIterable[Any], **options: Unpack[MapOptions]
    ) -> Coroutine[Any, Any, Job[V]]:
        """As ``map``, from a coroutine: the loop goes on while the ledger is written or has no room.

        A plain iterable is read in a thread, an async one on the loop.
        """
        return self._amap(items, Shape.ONE, options, self.gate.origin())

    def astarmap(
        self, items: Iterable[Any] | AsyncIterable[Any], **options: Unpack[MapOptions]
    ) -> Coroutine[Any, Any, Job[V]]:
        """As ``amap``, for ``function(*item)``."""
        return self._amap(items, Shape.STAR, options, self.gate.origin())

    def _map(self, items: Any, shape: Shape, options: MapOptions, origin: Origin) -> Job[V]:
        submission = self.gate.submission(self, shape, known_length(items), options, origin)
        return self.gate.submitted(drive(submission, items))

    async def _amap(self, items: Any, shape: Shape, options: MapOptions, origin: Origin) -> Job[V]:
        # The origin came from the plain function above: here the caller may already be the event loop.
        total = known_length(items)
        submission = await asyncio.to_thread(self.gate.submission, self, shape, total, options, origin)
        return await asyncio.to_thread(self.gate.submitted, await adrive(submission, items))


def check_options(options: MapOptions) -> None:
    """``ConfigurationError`` for what a submission cannot mean."""
    unknown = set(options) - set(MapOptions.__annotations__)
    if unknown:
        raise ConfigurationError(
            f"there is no option {', '.join(sorted(unknown))}", remedy=f"use {', '.join(MapOptions.__annotations__)}"
        )
    size = options.get("batch_size")
    if size is not None and not 0 < size <= 100_000:
        raise ConfigurationError(f"batch_size={size}", remedy="use 1 to 100,000 items, or leave it out to adapt")
    if options.get("durable", "memory") not in ("memory", "fsync"):
        raise ConfigurationError(f"durable={options['durable']!r}", remedy='use "memory" or "fsync"')
    for name in ("ttl_s", "patience_s"):
        seconds = options.get(name)
        if seconds is not None and not (isinstance(seconds, (int, float)) and seconds >= 0):
            raise ConfigurationError(f"{name}={seconds!r}", remedy="use seconds, 0 or more")


def task_name(function: Callable[..., Any]) -> str:
    """Module and qualified name, as a worker that imports the module sees them: a script is not ``__main__`` there."""
    module = getattr(function, "__module__", "") or ""
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        if spec is not None and spec.name:
            module = spec.name.removesuffix(".__main__")
        elif file:
            module = Path(file).stem
    return f"{module}.{function.__qualname__}"


def from_celery(gate: Tidegate, celery_task: Any) -> Task[Any, Any, Any]:
    """A task of an existing Celery app, with what its options say about retries, times and rate.

    ``autoretry_for`` becomes ``Retry``, ``soft_time_limit`` the timeout, ``time_limit`` the hard timeout, and
    ``rate_limit`` the rate (per process, as Celery's is).
    """
    bound = getattr(type(celery_task), "__bound__", False)
    # A bound task needs Celery's call, which gives it a request. A plain one is its function, without Celery's own retries.
    function = celery_task if bound else getattr(celery_task, "_orig_run", celery_task.run)
    soft = celery_task.soft_time_limit
    policy = TaskPolicy(
        timeout=soft,
        hard_timeout=max(celery_task.time_limit, soft or 0) if celery_task.time_limit else None,
        rate=celery_task.rate_limit or None,
        retry=_celery_retry(celery_task),
    )
    return Task(gate, function, name=celery_task.name, policy=policy)


def _celery_retry(celery_task: Any) -> Retry:
    kinds = tuple(getattr(celery_task, "autoretry_for", ()) or ())
    if not kinds:
        return Retry(attempts=1)
    options = getattr(celery_task, "retry_kwargs", None) or {}
    most = options.get("max_retries", celery_task.max_retries)
    backoff = getattr(celery_task, "retry_backoff", False)
    delay_s = float(backoff) if backoff else float(options.get("countdown", celery_task.default_retry_delay))
    return Retry(
        attempts=_MOST_ATTEMPTS if most is None else min(_MOST_ATTEMPTS, most + 1),
        base=delay_s,
        factor=2.0 if backoff else 1.0,
        cap=max(delay_s, float(getattr(celery_task, "retry_backoff_max", 600))),
        jitter="full" if backoff and getattr(celery_task, "retry_jitter", True) else "none",
        on=kinds,
        not_on=tuple(getattr(celery_task, "dont_autoretry_for", ()) or ()),
    )
