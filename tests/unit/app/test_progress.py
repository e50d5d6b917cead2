"""The progress bar: what a person sees of a job that runs, fails, waits for workers, or is held."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from tidegate import JobState, Outcome, Progress, Tidegate
from tidegate import progress as module
from tidegate.progress import show_progress


@pytest.fixture
def gate(ledger_url: str) -> Iterator[Tidegate]:
    with Tidegate(ledger_url) as gate:
        yield gate


def _drawn(gate: Tidegate, *looks: Progress) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)
    with show_progress(gate, console) as watch:
        for stands in looks:
            watch(stands)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _stands(**facts: object) -> Progress:
    usual: dict[str, object] = {
        "job_id": "j",
        "task": "shop.prices.fetch",
        "queue": "q",
        "state": JobState.SEALED,
        "total": 1000,
    }
    return Progress(**{**usual, **facts})  # type: ignore[arg-type]


def test_done_and_total_are_shown_under_the_tasks_short_name(gate: Tidegate) -> None:
    drawn = _drawn(gate, _stands(outcomes={Outcome.SUCCEEDED: 250}))

    assert "fetch" in drawn
    assert "shop.prices" not in drawn
    assert "250/1000" in drawn


def test_while_items_are_still_being_submitted_no_total_is_claimed(gate: Tidegate) -> None:
    assert "250/?" in _drawn(gate, _stands(state=JobState.OPEN, outcomes={Outcome.SUCCEEDED: 250}))


def test_what_did_not_succeed_is_named(gate: Tidegate) -> None:
    drawn = _drawn(gate, _stands(outcomes={Outcome.SUCCEEDED: 5, Outcome.FAILED: 2, Outcome.TIMED_OUT: 1}))

    assert "2 failed · 1 timed out" in drawn


def test_a_job_that_is_held_says_why(gate: Tidegate) -> None:
    assert "paused" in _drawn(gate, _stands(paused=True))
    assert "parked: [no] such task" in _drawn(gate, _stands(state=JobState.PARKED, reason="[no] such task"))


def test_a_job_that_nobody_works_on_says_how_to_start_a_worker(gate: Tidegate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_FOR_WORKERS_S", 0.0)

    assert "no worker is running: tidegate worker MODULE:NAME" in _drawn(gate, _stands())
    gate.ledger().heartbeat("somebody", slots=4, ttl_ms=60_000, facts={})
    assert "no worker" not in _drawn(gate, _stands())


def test_the_rate_of_an_ended_job_is_that_of_the_whole(gate: Tidegate) -> None:
    ended = _stands(state=JobState.DONE, outcomes={Outcome.SUCCEEDED: 1000}, created_ms=1000, finished_ms=3000)

    assert "500/s" in _drawn(gate, ended)


def test_several_jobs_have_a_line_each(gate: Tidegate) -> None:
    drawn = _drawn(gate, _stands(), _stands(job_id="k", task="app.other"))

    assert "fetch" in drawn
    assert "other" in drawn
