"""Submit, look, steer: the commands on a real ledger."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidegate import Tidegate
from tidegate.testing import drain

Run = Callable[..., Any]


def _drain() -> None:
    import shop

    drain(shop.gate)


def test_a_file_becomes_a_job_and_its_results(run: Run, shop: Path) -> None:
    (shop / "items.ndjson").write_text("1\n2\n3\n")

    ran = run("submit", "shop:double", "items.ndjson", "--json")

    assert ran.code == 0
    assert ran.err == ""
    document = ran.document
    assert (document["task"], document["total"], document["state"]) == ("shop.double", 3, "sealed")
    assert document["origin"].startswith(str(shop / "items.ndjson"))
    _drain()
    with Tidegate() as gate:
        assert sorted(gate.job(document["job"]).results()) == [(0, 2), (1, 4), (2, 6)]


def test_csv_rows_columns_and_lists_of_arguments(run: Run, shop: Path) -> None:
    (shop / "rows.csv").write_text("price,count\n1.5,2\n2,3\n")
    (shop / "pairs.ndjson").write_text("[1, 2]\n[3, 4]\n")
    ids = [
        run("submit", *arguments, "--json").document["job"]
        for arguments in (
            ("shop:price", "rows.csv"),
            ("shop:double", "rows.csv", "--column", "count"),
            ("shop:add", "pairs.ndjson", "--star"),
        )
    ]
    _drain()

    with Tidegate() as gate:
        assert [sorted(gate.job(job_id).results()) for job_id in ids] == [
            [(0, 3.0), (1, 6.0)],
            [(0, 4), (1, 6)],
            [(0, 3), (1, 7)],
        ]


def test_standard_input_is_a_source(run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"5\n6\n")))

    assert run("submit", "shop:double", "-", "--format", "lines", "--json").document["total"] == 2


def test_the_same_id_submits_once(run: Run, shop: Path) -> None:
    (shop / "items.txt").write_text("1\n2\n")

    first = run("submit", "shop:double", "items.txt", "--id", "nightly", "--json").document
    second = run("submit", "shop:double", "items.txt", "--id", "nightly", "--json").document

    assert first["job"] == second["job"]
    assert second["total"] == 2
    assert len(run("jobs", "--json").document) == 1


def test_jobs_are_listed_and_steered(run: Run, shop: Path) -> None:
    assert "no jobs" in run("jobs").out
    (shop / "items.txt").write_text("1\nx\n")
    job_id = run("submit", "shop:double", "items.txt", "--id", "mine", "--json").document["job"]

    assert run("pause", "mine").out.startswith(f"job {job_id}: paused, 0 of 2 succeeded")
    assert run("resume", job_id, "--json").document["paused"] is False
    listed = run("jobs").out
    assert job_id in listed
    assert "shop.double" in listed
    _drain()
    assert run("jobs", "--json").document[0]["outcomes"]["failed"] == 1
    again = run("replay", "mine", "--error-type", "ValueError", "--json").document
    assert (again["total"], again["replay_of"]) == (1, job_id)
    assert run("cancel", again["job"], "--reason", "enough", "--json").document["reason"] == "enough"
    assert "1 items of job" in run("replay", "mine").out


def test_a_job_cannot_steer_the_terminal_that_shows_it(run: Run, shop: Path) -> None:
    """Reasons and names come from other people."""
    (shop / "items.txt").write_text("1\n")
    run("submit", "shop:double", "items.txt", "--id", "x")
    run("cancel", "x", "--reason", "\x1b[2J[bold]gone")

    shown = run("cancel", "x").out

    assert "\x1b[2J" not in shown
    assert "\\x1b[2J[bold]gone" in shown


@pytest.mark.slow
def test_a_real_worker_runs_what_was_submitted_and_stops_when_told(shop: Path, ledger_url: str) -> None:
    from tidegate.testing import WorkerProcess

    (shop / "items.txt").write_text("".join(f"{number}\n" for number in range(1000)))
    with WorkerProcess("shop:gate", ledger_url, folder=shop, processes=2) as worker:
        command = [sys.executable, "-m", "tidegate", "submit", "shop:double", "items.txt", "--wait"]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=shop)
        code = worker.stop()

    assert ran.returncode == 0, ran.stderr
    assert "done, 1,000 of 1,000 succeeded" in ran.stdout
    assert code == 0, worker.log


@pytest.mark.slow
def test_waiting_for_a_job_whose_task_the_worker_does_not_know_says_so(shop: Path, ledger_url: str) -> None:
    """The job is parked, not lost; somebody has to act, so waiting ends."""
    from tidegate.testing import WorkerProcess

    (shop / "items.txt").write_text("1\n")
    (shop / "newer.py").write_text((shop / "shop.py").read_text() + "\n@gate.task\ndef triple(n): return 3 * int(n)\n")
    with WorkerProcess("shop:gate", ledger_url, folder=shop) as worker:
        command = [sys.executable, "-m", "tidegate", "submit", "newer:triple", "items.txt", "--wait", "--json"]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=shop)

    assert ran.returncode == 1, ran.stdout
    assert "is parked: task 'newer.triple' is not registered on the worker" in ran.stderr, worker.log
    assert "tidegate resume" in ran.stderr
    with Tidegate(ledger_url) as gate:
        assert gate.jobs()[0].pending == 1


@pytest.mark.slow
def test_waiting_for_a_job_with_failures_exits_with_1(shop: Path, ledger_url: str) -> None:
    from tidegate.testing import WorkerProcess

    (shop / "items.txt").write_text("1\nx\n")
    with WorkerProcess("shop:gate", ledger_url, folder=shop):
        command = [sys.executable, "-m", "tidegate", "submit", "shop:double", "items.txt", "--wait", "--json"]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=shop)

    assert ran.returncode == 1, ran.stderr
    assert '"failed": 1' in ran.stdout
