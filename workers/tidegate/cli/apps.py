"""From ``MODULE:NAME`` on the command line to a task; what cannot be found is explained."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from tidegate.app import Tidegate
from tidegate.errors import AppNotFound, TaskNotFound
from tidegate.task import Task
from tidegate.worker.seam import load_app


def import_module(name: str) -> ModuleType:
    """The module, looked for in the current directory too; ``AppNotFound`` says what its import ran into, and where."""
    if name.endswith(".py") or "/" in name:
        meant = name.removesuffix(".py").strip("./").replace("/", ".")
        raise AppNotFound(f"{name!r} is a file name", remedy=f"write it as Python imports it, for example {meant}:NAME")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise AppNotFound(
                f"there is no module {name!r}", remedy=f"write it as Python imports it from {here}, or install it"
            ) from error
        raise AppNotFound(f"{name!r} needs {error.name!r}", remedy="install it where tidegate is installed") from error
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = (
            f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) else f"{frame.filename}:{frame.lineno}"
        )
        raise AppNotFound(
            f"{name!r} cannot be imported: {type(error).__name__}: {error} ({where})",
            remedy="correct it, or run again with --traceback",
        ) from error


def load_gate(reference: str) -> Tidegate:
    """The app that ``MODULE:NAME`` names, or ``MODULE`` when it holds exactly one; ``AppNotFound`` says what is wrong."""
    import_module(reference.partition(":")[0])
    gate = load_app(reference)
    if not isinstance(gate, Tidegate):
        raise AppNotFound(
            f"{reference!r} is a {type(gate).__name__}", remedy="name the variable that holds Tidegate(...)"
        )
    return gate


def load_task(reference: str) -> Task[..., Any, Any]:
    """The task that ``MODULE:TASK`` or ``MODULE:APP.TASK`` names. The current directory can be imported from.

    ``AppNotFound``: the module does not import. ``TaskNotFound``: it does, but has no such task; close names are given.
    """
    module_name, _, name = reference.partition(":")
    module = import_module(module_name)
    if not name:
        raise TaskNotFound(
            f"{reference!r} names a module", remedy=f"write MODULE:TASK{_choices(module, module_name, '')}"
        )
    found: Any = module
    for part in name.split("."):
        following = getattr(found, part, None)
        if following is None and isinstance(found, Tidegate):
            following = found.find_task(part)
        found = following
    if isinstance(found, Task):
        return found
    gates = [value for value in vars(module).values() if isinstance(value, Tidegate)]
    celery_name = getattr(found, "name", None)
    if gates and isinstance(celery_name, str) and celery_name in gates[0].tasks:
        return gates[0].tasks[celery_name]
    what = "does not exist" if found is None else f"is a {type(found).__name__}, not a task"
    raise TaskNotFound(f"{reference!r} {what}", remedy=f"name a task{_choices(module, module_name, name)}")


def _choices(module: Any, module_name: str, meant: str) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Task)]
    close = difflib.get_close_matches(meant, names, n=3, cutoff=0.5) or sorted(names)[:5]
    if not close:
        return ": there is none in that module; decorate a function with @gate.task"
    return ": " + " or ".join(f"{module_name}:{name}" for name in close)
