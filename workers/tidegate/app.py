"""Tidegate: the composition root. It chooses the ledger, the broker and the settings; everything below is handed them."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, overload

import msgspec

from tidegate.errors import ConfigurationError, TaskNotFound
from tidegate.job import Job
from tidegate.model.job import JobSpec, Origin, Progress, new_job_id
from tidegate.model.limit import Limit
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry
from tidegate.model.signing import Keyring
from tidegate.model.wire import Shape
from tidegate.producer.calls import Call, CallStream, CallStreams
from tidegate.producer.drive import drive
from tidegate.producer.encoding import encode_call
from tidegate.producer.flow import SendTickets
from tidegate.producer.identity import job_id_for
from tidegate.producer.origin import capture
from tidegate.producer.sizing import BatchSizer
from tidegate.producer.submission import Submission, SubmissionOptions, with_fixed_split
from tidegate.registry import TaskRegistry
from tidegate.settings import Settings, load_settings
from tidegate.task import MapOptions, Task, TaskDefaults, check_options, task_name

if TYPE_CHECKING:
    from celery import Celery

    from tidegate.ledger.port import Ledger

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")

#: Seconds for which the job of single calls is kept after its end.
_CALLS_TTL_S = 600.0
#: Items a batch when the split must be repeatable and nobody chose.
_USUAL_BATCH = 500


class TaskOptions(TypedDict, total=False):
    """What ``@gate.task`` takes: the policy (see ``TaskPolicy``) and what submissions use unless they say otherwise."""

    name: str
    concurrency: int
    rate: str | float | None
    burst: int | None
    timeout: float | None
    hard_timeout: float | None
    retry: Retry | None
    limits: Sequence[Limit]
    max_crashes: int
    max_wait: float
    queue: str
    batch_size: int
    keep_results: bool


class _Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, V]]) -> Task[P, Coroutine[Any, Any, V], V]: ...
    @overload
    def __call__(self, function: Callable[P, V]) -> Task[P, V, V]: ...


class Tidegate:
    """An app: its tasks, its settings and its ledger. Nothing is connected or started before it is needed.

    ``url``: ``redis://…``, ``rediss://…`` or ``unix://…`` of the ledger; without it ``TIDEGATE_URL``, then the Redis broker
    of ``celery``, then an embedded Valkey for this user. ``celery``: an existing Celery app, whose tasks can then be mapped
    and whose broker carries the tickets. ``settings``, or single settings as keywords: see ``tidegate.settings.Settings``.
    ``ConfigurationError`` when an option makes no sense.

    >>> gate = Tidegate("redis://localhost:6379/0", queue="crawl")
    >>> @gate.task(concurrency=100, timeout=10)
    ... def double(number: int) -> int:
    ...     return 2 * number
    >>> double(21), double.queue, "double" in str(list(gate.tasks))
    (42, 'crawl', True)
    """

    def __init__(
        self, url: str | None = None, *, celery: Celery | None = None, settings: Settings | None = None, **options: Any
    ) -> None:
        if settings is not None and (options or url):
            raise ConfigurationError("settings and single options were both given", remedy="use one of the two")
        self.settings = settings or load_settings(url=url, **options)
        self.tasks = TaskRegistry(self, celery)
        secret = self.settings.signing_key
        self.keyring = Keyring(None if secret is None else secret.get_secret_value())
        self._given_celery = celery
        self._celery: Celery | None = celery
        self._url = ""
        self._ledger: Ledger | None = None
        self._ledger_pid = 0
        self._calls: CallStreams | None = None
        self._ends_with_map = False
        self._redirected = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Tidegate {self.settings.queue}: {len(self.tasks)} tasks>"

    def __enter__(self) -> Tidegate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what it stands on -------------------------------------------------------------------------------------
    @property
    def url(self) -> str:
        """Address of the ledger, with its password. Starts the embedded server when nothing is configured."""
        if not self._url:
            self._url = self._find_url()
        return self._url

    @property
    def broker_url(self) -> str:
        """Address of the broker that carries the tickets."""
        configured = None if self._redirected else self.settings.broker_url
        return configured.get_secret_value() if configured else self.url

    @property
    def celery(self) -> Celery:
        """The Celery app that carries the tickets: the given one, or one of our own."""
        if self._celery is None:
            from tidegate.worker import celery_app

            with self._lock:
                self._celery = self._celery or celery_app.build(self.settings, self.broker_url)
        return self._celery

    def ledger(self) -> Ledger:
        """The ledger. Each process has its own connections: a forked child gets new ones."""
        with self._lock:
            if self._ledger is None or self._ledger_pid != os.getpid():
                from tidegate.ledger.redis import RedisLedger

                self._ledger = RedisLedger.from_url(self.url)
                self._ledger_pid = os.getpid()
            return self._ledger

    def close(self) -> None:
        """Close the connections. The app may be used again: it connects anew. Calls without an answer get an error."""
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.close()
        with self._lock:
            ledger, self._ledger = self._ledger, None
            if ledger is not None and self._ledger_pid == os.getpid():
                ledger.close()
        if self._celery is not None and self._given_celery is None:
            self._celery.close()
            self._celery = None

    @contextlib.contextmanager
    def connected_to(self, url: str, *, ends_with_map: bool = False) -> Iterator[None]:
        """Use the server at ``url`` within, for the ledger and the tickets. ``ends_with_map``: ``map`` waits for its job."""
        before = self._url, self._celery, self._given_celery, self._ends_with_map, self._redirected
        self.close()
        self._url, self._celery, self._given_celery, self._ends_with_map, self._redirected = (
            url,
            None,
            None,
            ends_with_map,
            True,
        )
        try:
            yield
        finally:
            self.close()
            self._url, self._celery, self._given_celery, self._ends_with_map, self._redirected = before

    def inline(self, url: str | None = None) -> AbstractContextManager[Tidegate]:
        """For tests: within, jobs are run by this process before ``map`` returns. See ``tidegate.testing.inline``."""
        from tidegate.testing.inline import inline

        return inline(self, url)

    # -- tasks and jobs ----------------------------------------------------------------------------------------
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, V]], /) -> Task[P, Coroutine[Any, Any, V], V]: ...
    @overload
    def task(self, function: Callable[P, V], /) -> Task[P, V, V]: ...
    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> _Decorator: ...
    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a sync or async function a task: ``@gate.task`` or ``@gate.task(concurrency=…, retry=…, …)``.

        The name is the function's module and name, as the worker imports it. ``ConfigurationError`` on nonsense options.
        """
        if function is not None:
            return self._register(function, {})
        return lambda decorated: self._register(decorated, options)

    def map(self, task: Any, items: Iterable[Any] | AsyncIterable[Any], **options: Unpack[MapOptions]) -> Job[Any]:
        """Submit a job for a task, a task's name, or a task of the Celery app that was given to ``Tidegate(celery=…)``."""
        return self.find_task(task).map(items, **options)

    def find_task(self, task: Any) -> Task[..., Any, Any]:
        """The task that is meant. ``TaskNotFound`` says which names are close."""
        if isinstance(task, Task):
            return task
        name = task if isinstance(task, str) else getattr(task, "name", None)
        if not isinstance(name, str):
            raise TaskNotFound(f"{task!r} is not a task", remedy="decorate it with @gate.task, or give a task's name")
        return self.tasks.find(name)

    def job(self, job_id: str) -> Job[Any]:
        """A handle for a job by its id, or by the ``id=`` that it was submitted with. It is not looked up yet."""
        return Job(self, job_id_for(job_id))

    def jobs(self, limit: int = 50) -> list[Progress]:
        """The newest jobs, and how they stand."""
        return self.ledger().jobs(limit)

    # -- for task.py and job.py --------------------------------------------------------------------------------
    def origin(self) -> Origin:
        """Where this is called from: the line in the app, and the job whose item is being run here, if any."""
        current = sys.modules.get("tidegate.executor.current")  # not loaded: then nothing runs in this process either
        item = current.current_item() if current is not None else None
        return capture((item.job_id or "") if item is not None else "")

    def submission(
        self, task: Task[..., Any, Any], shape: Shape, total: int | None, options: MapOptions, origin: Origin
    ) -> Submission:
        """A submission of ``task``, not begun yet. ``ConfigurationError`` on nonsense options."""
        check_options(options)
        name = options.get("id")
        durable = options.get("durable") == "fsync"
        if durable:
            self.ledger().check_durable()
        spec = self._spec(task, shape, options, origin)
        fixed = options.get("batch_size") or task.defaults.batch_size or self.settings.batch_size
        exists = False
        if name is not None:
            spec, exists = with_fixed_split(self.ledger(), spec, fixed, _USUAL_BATCH)
        limits = SubmissionOptions(
            max_batch_bytes=self.settings.max_batch_bytes,
            keyring=self.keyring,
            patience_s=options.get("patience_s"),
            exists=exists,
            durable=durable,
        )
        return self._submit(spec, spec.batch_size or fixed, total, limits)

    def _spec(self, task: Task[..., Any, Any], shape: Shape, options: MapOptions, origin: Origin) -> JobSpec:
        settings = self.settings
        name = options.get("id")
        return JobSpec(
            job_id=job_id_for(name) if name is not None else new_job_id(),
            task=task.name,
            queue=options.get("queue") or task.queue,
            origin=origin,
            ttl_s=options.get("ttl_s", settings.job_ttl_s),
            keep_results=options.get("keep_results", task.defaults.keep_results),
            concurrency=task.policy.concurrency,
            timeout_s=task.policy.timeout or 0.0,
            attempts=task.policy.retry.attempts,
            limits=tuple(limit.name for limit in task.policy.limits),
            max_crashes=task.policy.max_crashes,
            max_pending_bytes=settings.max_pending_bytes,
            max_pending_batches=settings.max_pending_batches,
            shape=int(shape),
            silent_s=settings.silent_producer_s if name is None else settings.silent_resumable_s,
        )

    def resubmit(self, spec: JobSpec, items: Iterable[msgspec.Raw], name: str) -> Job[Any]:
        """Items in wire form, under the policy of ``spec``, as a new job that is linked to it. For replays."""
        again = msgspec.structs.replace(
            spec, job_id=job_id_for(name), origin=self.origin(), replay_of=spec.job_id, batch_size=0, chunk_batches=0
        )
        again, exists = with_fixed_split(self.ledger(), again, spec.batch_size or None, _USUAL_BATCH)
        limits = SubmissionOptions(max_batch_bytes=self.settings.max_batch_bytes, keyring=self.keyring, exists=exists)
        submission = self._submit(again, again.batch_size, None, limits)
        return self.submitted(drive(submission, items))

    def call(self, task: Task[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
        """Send one call of ``task`` on its way."""
        item = encode_call(args, kwargs, max_bytes=self.settings.max_batch_bytes)
        if self._calls is None:
            with self._lock:
                self._calls = self._calls or CallStreams(self._open_calls)
        return self._calls.submit(task.name, item)

    def _open_calls(self, task_name: str) -> CallStream:
        settings = self.settings
        task = self.tasks[task_name]
        # Answers are read as they come: nobody asks for them an hour later. The calls come from many lines of the app, so
        # the job names none; an error is raised where its call's result is asked for.
        spec = self._spec(task, Shape.CALL, {"ttl_s": min(_CALLS_TTL_S, settings.job_ttl_s)}, Origin())
        return CallStream(
            self.ledger(),
            self.keyring.sign_manifest(spec),
            self._sender(spec.queue),
            max_batch_bytes=settings.max_batch_bytes,
            keyring=self.keyring,
        )

    def submitted(self, job_id: str) -> Job[Any]:
        """The job that was just submitted; in inline mode it has ended."""
        job: Job[Any] = Job(self, job_id)
        if self._ends_with_map:
            job.wait()
        return job

    def send_tickets(self, queue: str, job_id: str, numbers: Sequence[int]) -> None:
        """Put tickets of a job into its queue. Never raises: a sweeper replaces what did not arrive."""
        self._sender(queue)(job_id, numbers)

    def _sender(self, queue: str) -> SendTickets:
        from tidegate.worker.tickets import TicketSender

        return TicketSender(self.celery, queue).send

    def _submit(self, spec: JobSpec, fixed: int | None, total: int | None, limits: SubmissionOptions) -> Submission:
        settings = self.settings
        if not limits.exists:
            spec = self.keyring.sign_manifest(spec)
        sizer = BatchSizer(
            fixed=fixed,
            total=total,
            concurrency=spec.concurrency,
            target_s=settings.target_batch_s,
            target_bytes=min(settings.target_batch_bytes, settings.max_batch_bytes),
        )
        return Submission(self.ledger(), spec, sizer, self._sender(spec.queue), limits)

    def _register(self, function: Callable[..., Any], options: Mapping[str, Any]) -> Task[..., Any, Any]:
        if not callable(function):
            raise ConfigurationError(
                f"{function!r} is not a function", remedy="decorate one: @gate.task(concurrency=…)"
            )
        chosen = dict(options)
        name = chosen.pop("name", None) or task_name(function)
        defaults = TaskDefaults(**{key: chosen.pop(key) for key in _DEFAULTS if key in chosen})
        if "limits" in chosen:
            chosen["limits"] = tuple(chosen["limits"] or ())
        if chosen.get("retry", ...) is None:
            del chosen["retry"]
        try:
            policy = TaskPolicy(**chosen)
        except TypeError:
            unknown = ", ".join(sorted(set(chosen) - set(TaskPolicy.__dataclass_fields__)))
            raise ConfigurationError(
                f"task {name}: there is no option {unknown}", remedy=f"use {', '.join(TaskOptions.__annotations__)}"
            ) from None
        task: Task[..., Any, Any] = Task(self, function, name=name, policy=policy, defaults=defaults)
        self.tasks.add(task)
        return task

    def _find_url(self) -> str:
        if self.settings.url is not None:
            return self.settings.url.get_secret_value()
        if self._given_celery is not None:
            broker = str(self._given_celery.conf.broker_url or "")
            if broker.startswith("redis+socket://"):
                return broker.removeprefix("redis+").replace("socket://", "unix://").replace("virtual_host=", "db=")
            if broker.startswith(("redis://", "rediss://")):
                return broker
        from tidegate.embedded import shared_server

        return shared_server(self.settings).url


_DEFAULTS = ("queue", "batch_size", "keep_results")
