"""``tidegate worker``: supervised worker processes for an app."""

from __future__ import annotations

from typing import Annotated

import typer

from tidegate.cli.apps import load_gate
from tidegate.errors import ConfigurationError
from tidegate.settings import Settings


def worker(
    app: Annotated[str, typer.Argument(metavar="MODULE:NAME", help="The app, as Python would import it from here.")],
    *,
    processes: Annotated[int | None, typer.Option("--processes", "-p", help="Worker processes. Default: 1.")] = None,
    slots: Annotated[int | None, typer.Option(help="Batches at work at once in each process. Default: 4.")] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", "-q", help="A queue to read; may be repeated. Default: those of the tasks."),
    ] = None,
    grace: Annotated[float | None, typer.Option(help="Seconds given to running items when it is stopped.")] = None,
    memory_limit: Annotated[int | None, typer.Option(help="Memory limit of a process in bytes.")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Run worker processes until they are told to stop (SIGTERM or Ctrl-C: finish what runs, hand back the rest)."""
    gate = load_gate(app)
    if not gate.tasks:
        raise ConfigurationError(f"{app} has no tasks", remedy="decorate a function with @gate.task in that module")
    chosen = {
        "processes": processes,
        "slots": slots,
        "grace_s": grace,
        "memory_limit_bytes": memory_limit,
        "log_level": log_level.upper() if log_level else None,
    }
    settings = _changed(gate.settings, {name: value for name, value in chosen.items() if value is not None})

    from tidegate.worker.supervisor import supervise

    raise typer.Exit(supervise(gate, app, settings, queues=tuple(queue or ())))


def _changed(settings: Settings, changes: dict[str, object]) -> Settings:
    """``settings`` with changes that are checked as all settings are."""
    from pydantic import ValidationError

    try:
        Settings.model_validate({**settings.model_dump(include=set(changes)), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).removesuffix("_s").removesuffix("_bytes").replace("_", "-")
        raise ConfigurationError(f"{option} {first['input']}", remedy=first["msg"]) from None
    return settings.model_copy(update=changes)
