"""The README tells the truth: its code runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_code_from_an_app_runs_as_written(ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stranger pastes works: the app in one file, a worker beside it, a job, its results, its report."""
    app, usage, _executor = _blocks("python")
    (tmp_path / "readme_app.py").write_text(app)
    monkeypatch.setenv("TIDEGATE_URL", ledger_url)
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "tidegate", "worker", "readme_app:gate", "--processes", "1"]
    with subprocess.Popen(command, cwd=tmp_path) as worker:
        try:
            script = "from readme_app import fetch\n" + usage + "\nassert job.progress().done == 1000\n"
            done = subprocess.run(
                [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
            )
        finally:
            worker.terminate()
            worker.wait(90)

    assert done.returncode == 0, done.stderr
    assert "1,000" in done.stdout


def test_the_executor_alone_runs_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    *_others, alone = _blocks("python")

    exec(compile(alone, "README.md", "exec"), {"__name__": "readme"})

    assert capsys.readouterr().out.strip() == "['A', 'B', 'C']"


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for document in DOCUMENTS:
        for target in re.findall(r"(?:^\$ |`)make ([a-z-]+)", document.read_text(), flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{document.name} names make {target}"


def test_every_command_that_is_named_exists_and_explains_itself() -> None:
    command = shutil.which("tidegate", path=str(Path(sys.executable).parent))
    base = [command] if command else [sys.executable, "-m", "tidegate"]
    names = set(re.findall(r"^\$ tidegate ([a-z]+)", README, flags=re.MULTILINE))
    names |= {"demo", "cancel", "pause", "resume", "replay", "top", "analyze", "bench", "down"}
    for name in sorted(names):
        shown = subprocess.run([*base, name, "--help"], capture_output=True, text=True, timeout=60, check=False)
        assert shown.returncode == 0, f"tidegate {name} --help: {shown.stderr}"
        assert "Usage" in shown.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_promises_are_printed() -> None:
    """DESIGN's promises are what users choose Tidegate for; the README carries all six."""
    promises = re.findall(r"^([1-6])\. ", README.split("## Promises")[1].split("## ")[0], flags=re.MULTILINE)

    assert promises == ["1", "2", "3", "4", "5", "6"]
