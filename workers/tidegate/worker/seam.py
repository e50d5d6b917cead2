"""What the worker asks of the app above it: a few attributes, so that nothing here imports upwards."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tidegate.errors import AppNotFound

if TYPE_CHECKING:
    from celery import Celery

    from tidegate.ledger.port import Ledger
    from tidegate.model.policy import TaskPolicy
    from tidegate.model.signing import Keyring
    from tidegate.settings import Settings


class WorkerTask(Protocol):
    """A registered task."""

    @property
    def name(self) -> str:
        """The name that jobs use."""

    @property
    def function(self) -> Callable[..., Any]:
        """What is applied to an item."""

    @property
    def policy(self) -> TaskPolicy:
        """How it is applied."""

    @property
    def queue(self) -> str:
        """The queue of its tickets."""


class WorkerApp(Protocol):
    """The composition root, as a worker process sees it."""

    @property
    def tasks(self) -> Mapping[str, WorkerTask]:
        """Registered tasks by name."""

    @property
    def keyring(self) -> Keyring:
        """What signatures are checked with."""

    @property
    def settings(self) -> Settings:
        """Effective settings."""

    @property
    def url(self) -> str:
        """Address of the ledger, with its password."""

    @property
    def celery(self) -> Celery:
        """The Celery app that carries tickets."""

    def ledger(self) -> Ledger:
        """The ledger."""


def load_app(reference: str) -> WorkerApp:
    """The app that ``MODULE:NAME`` (or ``MODULE``, when it has exactly one) names; ``AppNotFound`` says what is wrong.

    The current directory can be imported from, as with ``python -m``.
    """
    module_name, _, attribute = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise AppNotFound(
            f"{module_name!r} cannot be imported: {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})",
            remedy=f"write MODULE:NAME as Python imports it from {here}, and correct what its import runs into",
        ) from error
    found = _looked_up(module, attribute) if attribute else _only_app(module, module_name)
    if not _is_app(found):
        raise AppNotFound(
            f"{reference!r} is a {type(found).__name__}, not a Tidegate app",
            remedy="name the variable that holds Tidegate(...)",
        )
    app: WorkerApp = found
    return app


def _looked_up(module: Any, attribute: str) -> Any:
    found = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise AppNotFound(
                f"{module.__name__!r} has no {attribute!r}",
                remedy=f"name one of: {', '.join(_apps(module)) or 'it holds no Tidegate app'}",
            ) from None
    return found


def _only_app(module: Any, module_name: str) -> Any:
    names = _apps(module)
    if len(names) != 1:
        raise AppNotFound(
            f"{module_name!r} holds {len(names)} Tidegate apps",
            remedy=f"write {module_name}:NAME" + (f" with NAME one of {', '.join(names)}" if names else ""),
        )
    return getattr(module, names[0])


def _apps(module: Any) -> list[str]:
    return sorted(name for name, value in vars(module).items() if not name.startswith("_") and _is_app(value))


def _is_app(value: Any) -> bool:
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("tasks", "settings", "ledger"))
