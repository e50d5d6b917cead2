"""The command line: one module per command, imported when it is called, so that `tidegate jobs` does not load a web server.

Errors are one line that says what to do; the exit code is the error's (see ``tidegate.errors``), 2 for wrong usage, 130 for
Ctrl-C. ``--traceback`` anywhere, or TIDEGATE_TRACEBACK=1, shows where an error came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import typer

from tidegate.errors import TidegateError

_INTERRUPTED = 130

#: In the order of ``tidegate --help``. Module ``tidegate.cli.NAME`` holds the function ``NAME``.
COMMANDS = (
    "demo",
    "worker",
    "submit",
    "jobs",
    "report",
    "top",
    "collector",
    "cancel",
    "pause",
    "resume",
    "replay",
    "doctor",
    "down",
    "analyze",
    "bench",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    code = run(list(sys.argv[1:] if arguments is None else arguments))
    if code == _INTERRUPTED:
        # Under `python -m`, a Ctrl-C that struck while some library executed a string (dataclasses do, at import) leaves a mark
        # in CPython, which then ends itself by SIGINT instead of the code it was given. Executing a string takes it away.
        exec("")  # noqa: S102
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    arguments, traceback = _without_traceback_option(arguments)
    try:
        return _dispatch(arguments)
    except TidegateError as error:
        if traceback:
            raise
        _complain(str(error), getattr(error, "__notes__", ()))
        return error.exit_code
    except KeyboardInterrupt:
        if traceback:
            raise
        return _INTERRUPTED
    except BrokenPipeError:  # `tidegate jobs | head`: nobody reads on, and Python must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if traceback:
            raise
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error), ())
        return 1
    except Exception as error:
        if traceback:
            raise
        _complain(f"{type(error).__name__}: {error} (run again with --traceback to see where)", ())
        return 1


def _dispatch(arguments: list[str]) -> int:
    named = next((argument for argument in arguments if not argument.startswith("-")), "")
    app = _app(only=named if named in COMMANDS else None)
    try:
        # typer returns the code of typer.Exit, or what the command returned.
        code = app(arguments, standalone_mode=False, prog_name="tidegate")
    except typer.Abort:
        return _INTERRUPTED
    except Exception as error:
        # Wrong usage: typer's own exceptions know how to show themselves, and are private to it.
        if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
            raise
        _complain(error.format_message(), ())
        return int(error.exit_code)
    return code if isinstance(code, int) else 0


def _app(only: str | None) -> typer.Typer:
    app = typer.Typer(
        name="tidegate",
        help="Run one function over very many items: calmly, on one machine or many, with a report that says what to change.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def _options(
        version: bool = typer.Option(
            False, "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ) -> None:
        pass

    for name in COMMANDS if only is None else (only,):
        if find_spec(f"tidegate.cli.{name}") is not None:
            function = getattr(import_module(f"tidegate.cli.{name}"), name)
            app.command(name)(function)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from tidegate import __version__

        typer.echo(f"tidegate {__version__}")
        raise typer.Exit


def _without_traceback_option(arguments: list[str]) -> tuple[list[str], bool]:
    wanted = os.environ.get("TIDEGATE_TRACEBACK", "") not in ("", "0")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--traceback"]
    return kept + arguments[end:], wanted or len(kept) < end


def _complain(message: str, notes: Sequence[str]) -> None:
    print(f"tidegate: {message}", file=sys.stderr)
    for note in notes:
        print(f"tidegate: {note}", file=sys.stderr)
