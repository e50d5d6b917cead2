"""``tidegate bench`` and the benchmark script: that they measure what they say. Never how fast: the machine is shared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[3]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "TMPDIR": str(folder),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_the_command_measures_and_leaves_nothing_behind(tmp_path: Path) -> None:
    ended = run(tmp_path, "-m", "tidegate", "bench", "--items", "3000", "--batch-size", "100", "--runs", "2", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["items"] == 3000
    assert len(found["runs"]) == 2
    assert all(run["enqueue_rate"] > run["rate"] > 0 for run in found["runs"])
    assert list(tmp_path.iterdir()) == []


def test_the_script_compares_all_contenders_in_one_run(tmp_path: Path) -> None:
    options = ["--runs", "1", "--items", "2000", "--messages", "50", "--batch", "100", "--json", "found.json"]
    ended = run(tmp_path, str(ROOT / "bench" / "end_to_end.py"), *options)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["runs"]) == {"tidegate", "celery, a message an item", "celery, chunks", "floor"}
    assert set(found["ratios"]) == set(found["runs"]) - {"tidegate"}
    for runs in found["runs"].values():
        assert all(run["drain_s"] > 0 and run["enqueue_s"] > 0 and run["worker_peak_bytes"] > 1e6 for run in runs)
    assert "Tidegate is" in ended.stdout
