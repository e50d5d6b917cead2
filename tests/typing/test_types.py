"""The types that users see: values keep theirs through a job, and misspelt options are found before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed: pip install 'tidegate[lint]'")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_type_checker_understands_an_app(tmp_path: Path) -> None:
    """Every ``type: ignore`` in the sample is an error that has to be found: unused ones fail too."""
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", f"--cache-dir={tmp_path}"]
    ran = subprocess.run(
        [*command, "--config-file=", str(Path(__file__).with_name("sample_app.py"))],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT / "workers"), "PATH": ""},
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
