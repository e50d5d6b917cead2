"""``tidegate doctor``: what is configured, reachable and installed, and what to do about what is not. Starts nothing."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Literal

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from tidegate.cli.options import Json, Url
from tidegate.cli.output import console, print_json, printable
from tidegate.errors import LedgerError, TidegateError
from tidegate.settings import Settings, load_settings

if TYPE_CHECKING:
    from tidegate.ledger.redis import RedisLedger

State = Literal["ok", "note", "bad"]
_MARKS = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "bad": "[red]bad[/red]"}
#: Share of the server's memory in results and dead letters from which doctor says something.
_MUCH_KEPT = 0.25
_EXTRAS = {"uvloop": "pip install 'tidegate[uvloop]'"}


class Check(msgspec.Struct, frozen=True):
    """One thing looked at. ``code``: exit code that it asks for when it is bad."""

    name: str
    state: State
    detail: str
    remedy: str = ""
    code: int = 0


def doctor(*, json: Json = False, url: Url = None) -> None:
    """Check the configuration, the server, the workers and the installation; exit code 0 when all is well."""
    checks = list(_all_checks(url))
    if json:
        print_json({"ok": all(check.state != "bad" for check in checks), "checks": checks})
    else:
        console.print(_table(checks))
    code = next((check.code for check in checks if check.state == "bad"), 0)
    raise typer.Exit(code)


def _all_checks(url: str | None) -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}")
    yield from _guarded("executor", _executor)
    yield from _guarded("libraries", _libraries)
    settings: list[Settings] = []
    yield from _guarded("settings", lambda: _settings(url, settings))
    if settings:
        yield from _guarded("signing", lambda: _signing(settings[0]))
        address: list[str] = []
        yield from _guarded("address", lambda: _address(settings[0], address))
        if address:
            yield from _guarded("server", lambda: _server(address[0]))
            yield from _guarded("broker", lambda: _broker(settings[0], address[0]))


def _guarded(name: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from check()
    except TidegateError as error:
        yield Check(name, "bad", error.cause, error.remedy, error.exit_code)


def _executor() -> Iterator[Check]:
    try:
        importlib.import_module("tidegate.executor._native")
    except ImportError as error:
        yield Check(
            "executor", "bad", f"the C extension does not load: {error}", "install tidegate again: pip install .", 1
        )
    else:
        yield Check("executor", "ok", "the C extension loads")


def _libraries() -> Iterator[Check]:
    names = ("celery", "kombu", "redis", "hiredis", "msgspec")
    yield Check("libraries", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in names))
    for name, remedy in _EXTRAS.items():
        try:
            yield Check("extras", "ok", f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Check("extras", "note", f"{name} is not installed (optional)", remedy)


def _settings(url: str | None, found: list[Settings]) -> Iterator[Check]:
    found.append(load_settings(url=url))
    named = sorted(name for name in os.environ if name.startswith("TIDEGATE_"))
    file = os.environ.get("TIDEGATE_CONFIG")
    parts = [f"file {file}" if file else "no file (TIDEGATE_CONFIG)", ", ".join(named) or "no TIDEGATE_* variables"]
    yield Check("settings", "ok", "; ".join(parts))


def _signing(settings: Settings) -> Iterator[Check]:
    from tidegate.model.signing import Keyring

    secret = settings.signing_key
    signs = bool(Keyring(None if secret is None else secret.get_secret_value()))
    yield Check(
        "signing", "ok", "jobs are signed and checked" if signs else "jobs are not signed (TIDEGATE_SIGNING_KEY)"
    )


def _address(settings: Settings, found: list[str]) -> Iterator[Check]:
    from tidegate.ledger.connection import safe_url

    if settings.url is not None:
        found.append(settings.url.get_secret_value())
        yield Check("address", "ok", safe_url(found[0]))
        return
    from tidegate.embedded import find_server, find_shared

    shared = find_shared(settings)
    if shared is not None:
        found.append(shared.url)
        yield Check(
            "address", "ok", f"embedded server, process {shared.pid}, in {shared.directory}", "`tidegate down` stops it"
        )
        return
    yield Check(
        "address",
        "note",
        f"nothing is configured and no embedded server runs; {find_server()} is started when one is needed",
        "set TIDEGATE_URL=redis://host:6379/0 to use a server of yours",
    )


def _server(address: str) -> Iterator[Check]:
    from tidegate.ledger.redis import RedisLedger

    ledger = RedisLedger.from_url(address)
    facts = ledger.check()
    yield Check("server", "ok", ", ".join(f"{name} {value}" for name, value in facts.items()))
    yield from _results(ledger)
    workers = ledger.workers()
    if workers:
        yield Check("workers", "ok", f"{len(workers)} worker processes")
    else:
        yield Check("workers", "note", "no worker is running", "start one: tidegate worker MODULE:NAME")


def _results(ledger: RedisLedger) -> Iterator[Check]:
    """What items returned stays until their jobs expire: nothing else on the server grows with the work that was done."""
    try:
        kept, limit = ledger.kept_bytes()
    except LedgerError as error:  # a user that may run the scripts, and not look at memory
        yield Check("results", "note", f"how much is kept is not known: {error.cause}")
        return
    detail = f"results and dead letters take {kept:,} of {limit:,} bytes" if limit else f"{kept:,} bytes"
    if limit and kept >= _MUCH_KEPT * limit:
        remedy = (
            "keep less (keep_results=False, return references), or for a shorter time (ttl_s of a job, TIDEGATE_JOB_TTL_S), "
            "or give the server more memory: one that is full refuses new work"
        )
        yield Check("results", "note", detail, remedy)
    else:
        yield Check("results", "ok", detail)


def _broker(settings: Settings, address: str) -> Iterator[Check]:
    from tidegate.ledger.connection import safe_url
    from tidegate.worker.celery_app import build

    configured = settings.broker_url.get_secret_value() if settings.broker_url else address
    where = safe_url(configured) if settings.broker_url else "the ledger's server"
    celery = build(settings, configured)
    try:
        with celery.connection_for_write(connect_timeout=3) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=3)
    except Exception as error:  # noqa: BLE001 - each transport has errors of its own
        yield Check("broker", "bad", f"no answer from {where}: {error}", "start it, or correct TIDEGATE_BROKER_URL", 4)
    else:
        yield Check("broker", "ok", where)
    finally:
        celery.close()


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        table.add_row(check.name, _MARKS[check.state], Text(printable(check.detail)))
        if check.remedy:
            table.add_row("", "", Text(f"→ {printable(check.remedy)}", style="dim"))
    return table
