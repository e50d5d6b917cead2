"""The tasks of an app by name: its own, and those of the Celery app that it was given."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tidegate.errors import ConfigurationError, TaskNotFound
from tidegate.task import Task, from_celery

if TYPE_CHECKING:
    from celery import Celery

    from tidegate.app import Tidegate


class TaskRegistry(Mapping[str, "Task[..., Any, Any]"]):
    """A mapping from names to tasks. Celery's tasks are looked up when asked for, because they may register late."""

    def __init__(self, gate: Tidegate, celery: Celery | None) -> None:
        self._gate = gate
        self._celery = celery
        self._tasks: dict[str, Task[..., Any, Any]] = {}

    def __getitem__(self, name: str) -> Task[..., Any, Any]:
        if name not in self._tasks and name in self._celery_names():
            assert self._celery is not None
            self._tasks[name] = from_celery(self._gate, self._celery.tasks[name])
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._tasks, *self._celery_names()}))

    def __len__(self) -> int:
        return len({*self._tasks, *self._celery_names()})

    def add(self, task: Task[..., Any, Any]) -> None:
        """Register a task. The same function defined again (a notebook, a reload) replaces the old one."""
        old = self._tasks.get(task.name)
        if old is not None and _place(old) != _place(task):
            raise ConfigurationError(
                f"two tasks are called {task.name!r}", remedy="give one of them another name: @gate.task(name=…)"
            )
        self._tasks[task.name] = task

    def find(self, name: str) -> Task[..., Any, Any]:
        """The task of that name, or the only one whose name ends in ``.name``; ``TaskNotFound`` names close ones."""
        if name in self:
            return self[name]
        ending = [known for known in self if known.endswith(f".{name}")]
        if len(ending) == 1:
            return self[ending[0]]
        known = list(self)
        close = ending or difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:5]
        raise TaskNotFound(
            f"there is no task {name!r}",
            remedy=f"did you mean {' or '.join(close)}?" if close else "decorate a function with @gate.task",
            close=close,
        )

    def _celery_names(self) -> set[str]:
        if self._celery is None:
            return set()
        return {name for name in self._celery.tasks if not name.startswith(("celery.", "tidegate."))}


def _place(task: Task[..., Any, Any]) -> tuple[str, str]:
    function = task.function
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))
