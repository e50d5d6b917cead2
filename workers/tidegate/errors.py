"""Every error that Tidegate raises, and the exit code the command line gives it.

    TidegateError
    ├── ConfigurationError        settings or options that make no sense            exit 2
    │   ├── TaskNotFound          no such task in this app                          exit 2
    │   └── AppNotFound           MODULE:NAME does not import or is not an app      exit 2
    ├── LimitKeyError             the key function of a limit failed, or answered no key
    ├── PayloadError              an argument or result that cannot be encoded      exit 3
    │   └── PayloadTooLarge       over the limit for one item or one batch          exit 3
    ├── LedgerError               the ledger refused or could not be asked          exit 4
    │   ├── LedgerUnavailable     no server at the address, or it stopped answering
    │   ├── LedgerDenied          wrong password or missing permission
    │   ├── LedgerFull            the server is out of memory, or the mark is reached
    │   ├── LedgerLost            the server came back without the job
    │   ├── LedgerUnsuitable      wrong server version or a policy that evicts keys
    │   ├── SubmissionConflict    the same submission id with other content
    │   ├── JobEnded              the job is sealed or cancelled: nothing can be added
    │   └── JobNotFound           no such job, or it expired
    ├── JobFailed                 some items of the job did not succeed             exit 1
    ├── LeaseLost                 the batch was handed to another worker
    ├── ExecutorClosed            used after close()
    ├── ExecutorFull              bounded submission refused more items
    ├── CFunctionFailed           a C function returned something other than 0
    └── RetryAfter                raised by a task: try again after that many seconds

Each message names the cause and then what to do; the facts are attributes, so that programs need not read prose.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TidegateError(Exception):
    """Base of all errors raised on purpose. ``remedy`` says what to do; ``facts`` holds the details.

    >>> try:
    ...     raise LedgerFull("the ledger is full", remedy="add workers or raise high_water_bytes", used_bytes=10)
    ... except TidegateError as error:
    ...     str(error), error.facts["used_bytes"]
    ('the ledger is full: add workers or raise high_water_bytes', 10)
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, *, remedy: str = "", **facts: Any) -> None:
        self.cause = cause
        self.remedy = remedy
        self.facts = facts
        super().__init__(f"{cause}: {remedy}" if remedy else cause)


class ConfigurationError(TidegateError, ValueError):
    """A setting or option that makes no sense, found before anything is written."""

    exit_code = 2


class TaskNotFound(ConfigurationError):
    """The app has no task of that name."""


class AppNotFound(ConfigurationError):
    """``MODULE:NAME`` does not import, or what it names is not a Tidegate app."""


class PayloadError(TidegateError, TypeError):
    """An argument or a result that the wire form cannot carry."""

    exit_code = 3


class PayloadTooLarge(PayloadError):
    """One item, or one batch, is over its size limit."""


class LimitKeyError(TidegateError, ValueError):
    """The ``key`` function of a limit failed for an item, or answered something that is no key. The item fails with it."""


class LedgerError(TidegateError):
    """The ledger refused a request, or could not be asked."""

    exit_code = 4


class LedgerUnavailable(LedgerError):
    """No server at the address, or it stopped answering."""


class LedgerDenied(LedgerError):
    """The server wants another user, password or permission."""


class LedgerFull(LedgerError):
    """The server is out of memory, or the job's high-water mark is reached and the caller would not wait."""


class LedgerLost(LedgerError):
    """The server answers, but what it had confirmed is gone."""


class LedgerUnsuitable(LedgerError):
    """The server is too old, or is configured to throw keys away."""


class SubmissionConflict(LedgerError):
    """The same submission id was used for other content."""


class JobEnded(LedgerError):
    """The job is sealed or cancelled: nothing can be added to it."""


class JobNotFound(LedgerError):
    """No job of that id: never opened, or past its time to live."""


class JobFailed(TidegateError):
    """Raised where one value was asked for and its item did not succeed."""


class LeaseLost(TidegateError):
    """The batch was handed to another worker; nothing was written."""


class ExecutorClosed(TidegateError, RuntimeError):
    """The executor was closed, or belongs to the process this one was forked from."""


class ExecutorFull(TidegateError):
    """A bounded submission that would not wait found no room."""


class CFunctionFailed(TidegateError):
    """A C function of the executor did not return 0: the error of its item's outcome. ``status`` is what it returned.

    >>> CFunctionFailed("parse returned -3", status=-3).status
    -3
    """

    @property
    def status(self) -> int:
        return int(self.facts["status"])


class RetryAfter(TidegateError):
    """Raised by a task when the other side said when to come back (for example HTTP 429).

    ``delay_s`` is in seconds. The limits of the task are paused for that long, cluster-wide.

    >>> RetryAfter(1.5).delay_s
    1.5
    """

    def __init__(self, delay_s: float, cause: str = "") -> None:
        self.delay_s = float(delay_s)
        self.retry_after = self.delay_s
        super().__init__(cause or f"asked to come back in {self.delay_s:g} s", delay_s=self.delay_s)

    def __reduce__(self) -> tuple[type[RetryAfter], tuple[float, str]]:
        return RetryAfter, (self.delay_s, self.cause)
