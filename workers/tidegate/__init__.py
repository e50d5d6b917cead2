"""Tidegate runs one function over very many items, on one machine or many, calmly.

    from tidegate import Limit, Retry, Tidegate

    gate = Tidegate()

    @gate.task(concurrency=100, timeout=10, retry=Retry(attempts=5))
    async def fetch(url: str) -> int: ...

    job = fetch.map(urls)
    job.wait(progress=True)

The names below are the public ones. They are loaded when they are first used, so that ``import tidegate.errors`` in a
command line or a worker's child costs neither Celery nor the C executor.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate.app import Tidegate
    from tidegate.errors import (
        AppNotFound,
        CFunctionFailed,
        ConfigurationError,
        ExecutorClosed,
        ExecutorFull,
        JobEnded,
        JobFailed,
        JobNotFound,
        LeaseLost,
        LedgerDenied,
        LedgerError,
        LedgerFull,
        LedgerLost,
        LedgerUnavailable,
        LedgerUnsuitable,
        PayloadError,
        PayloadTooLarge,
        RetryAfter,
        SubmissionConflict,
        TaskNotFound,
        TidegateError,
    )
    from tidegate.executor import Executor, current_item
    from tidegate.job import Job
    from tidegate.model.job import Progress
    from tidegate.model.limit import Limit
    from tidegate.model.outcome import Failure, JobState, Outcome
    from tidegate.model.retry import Retry
    from tidegate.task import Task

__version__ = "0.1.0"

__all__ = [
    "AppNotFound",
    "CFunctionFailed",
    "ConfigurationError",
    "Executor",
    "ExecutorClosed",
    "ExecutorFull",
    "Failure",
    "Job",
    "JobEnded",
    "JobFailed",
    "JobNotFound",
    "JobState",
    "LeaseLost",
    "LedgerDenied",
    "LedgerError",
    "LedgerFull",
    "LedgerLost",
    "LedgerUnavailable",
    "LedgerUnsuitable",
    "Limit",
    "Outcome",
    "PayloadError",
    "PayloadTooLarge",
    "Progress",
    "Retry",
    "RetryAfter",
    "SubmissionConflict",
    "Task",
    "TaskNotFound",
    "Tidegate",
    "TidegateError",
    "current_item",
]

_HOMES = {
    "Executor": "tidegate.executor",
    "Failure": "tidegate.model.outcome",
    "Job": "tidegate.job",
    "JobState": "tidegate.model.outcome",
    "Limit": "tidegate.model.limit",
    "Outcome": "tidegate.model.outcome",
    "Progress": "tidegate.model.job",
    "Retry": "tidegate.model.retry",
    "Task": "tidegate.task",
    "Tidegate": "tidegate.app",
    "current_item": "tidegate.executor",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tidegate' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "tidegate.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
