"""Findings about items: each appears with its evidence, stays away without it, and changes its mind exactly at its bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tidegate.model.outcome import Outcome
from tidegate.report.facts import Facts, FailureGroup, Sample
from tidegate.report.findings import Finding, Severity, find

MS = 1_000_000
S = 1_000 * MS


def found(facts: Facts, code: str) -> Finding | None:
    return next((finding for finding in find(facts) if finding.code == code), None)


def test_a_healthy_job_has_no_findings(make_facts: Any) -> None:
    assert find(make_facts()) == ()


@pytest.mark.parametrize(("count", "each_ns", "appears"), [(5, 5 * S + 1, True), (5, 5 * S, False), (4, 60 * S, False)])
def test_long_items_need_five_runs_over_five_seconds(
    make_facts: Any, make_times: Any, count: int, each_ns: int, appears: bool
) -> None:
    facts = make_facts(times=make_times(running=(count, each_ns)))

    assert appears == (found(facts, "long_items") is not None)


@pytest.mark.parametrize(
    ("failed", "total", "appears"), [(101, 1000, True), (100, 1000, False), (3, 20, True), (19, 19, False)]
)
def test_failure_rate_is_told_above_ten_per_cent_of_twenty_items(
    make_facts: Any, failed: int, total: int, appears: bool
) -> None:
    facts = make_facts(outcomes={Outcome.SUCCEEDED: total - failed, Outcome.FAILED: failed}, total=total)

    assert appears == (found(facts, "failure_rate") is not None)


def test_failure_rate_names_the_leading_error_its_fingerprint_and_the_line_that_enqueued_it(make_facts: Any) -> None:
    group = FailureGroup(fingerprint="a1b2", error_type="ValueError", count=300, file="/app/fetch.py", line=31)
    facts = make_facts(
        outcomes={Outcome.SUCCEEDED: 600, Outcome.FAILED: 400},
        errors={"ValueError": 300, "OSError": 100},
        groups=(group,),
    )

    finding = found(facts, "failure_rate")

    assert finding is not None
    assert finding.severity is Severity.WARNING
    for part in ("ValueError is 75 %", "a1b2 at /app/fetch.py:31", "enqueued at /app/shop/views.py:88"):
        assert part in finding.evidence


def test_a_job_that_mostly_fails_is_critical_and_cancelled_items_do_not_count_as_failures(make_facts: Any) -> None:
    mostly = found(
        make_facts(outcomes={Outcome.SUCCEEDED: 400, Outcome.CRASHED: 0, Outcome.FAILED: 600}), "failure_rate"
    )
    cancelled = make_facts(outcomes={Outcome.SUCCEEDED: 400, Outcome.CANCELLED: 600})

    assert mostly is not None
    assert mostly.severity is Severity.CRITICAL
    assert found(cancelled, "failure_rate") is None


@pytest.mark.parametrize(
    ("retries", "attempts", "appears"), [(31, 90, True), (30, 90, False), (18, 19, False), (0, 1000, False)]
)
def test_retries_dominate_above_a_third_of_the_executions(
    make_facts: Any, retries: int, attempts: int, appears: bool
) -> None:
    facts = make_facts(retries=retries, attempts=attempts)

    assert appears == (found(facts, "retries_dominate") is not None)


@pytest.mark.parametrize(("timed_out", "appears"), [(10, True), (9, False)])
def test_timeouts_are_told_from_one_per_cent(make_facts: Any, timed_out: int, appears: bool) -> None:
    facts = make_facts(outcomes={Outcome.SUCCEEDED: 1000 - timed_out, Outcome.TIMED_OUT: timed_out})

    finding = found(facts, "timeouts")

    assert appears == (finding is not None)
    assert finding is None or "the timeout is 2 s" in finding.evidence


def test_two_timeouts_of_twenty_items_are_an_accident(make_facts: Any) -> None:
    facts = make_facts(outcomes={Outcome.SUCCEEDED: 18, Outcome.TIMED_OUT: 2}, total=20)

    assert found(facts, "timeouts") is None


def test_one_crashed_item_is_told_with_its_index(make_facts: Any) -> None:
    sample = Sample(index=7, outcome=Outcome.CRASHED, message="", attempts=3, arguments="7")
    group = FailureGroup(fingerprint="c", error_type="Crash", count=1, samples=(sample,))
    facts = make_facts(outcomes={Outcome.SUCCEEDED: 999, Outcome.CRASHED: 1}, groups=(group,))

    finding = found(facts, "crashes")

    assert finding is not None
    assert finding.severity is Severity.CRITICAL
    assert finding.title.startswith("1 item killed")
    assert "index 7" in finding.evidence


@pytest.mark.parametrize(
    ("slow_ns", "runs", "batches", "appears"),
    [
        (200 * MS, 990, 20, True),
        (200 * MS, 990, 1000, False),  # one item a batch holds nobody up
        (60 * MS, 990, 20, False),  # ten times the median, but soon over
        (200 * MS, 70, 20, False),  # too few runs for a p99
    ],
)
def test_stragglers_need_many_runs_in_large_batches_and_a_long_tail(
    make_facts: Any, make_spread: Callable[..., Any], slow_ns: int, runs: int, batches: int, appears: bool
) -> None:
    running = make_spread((runs, 5 * MS), (20, slow_ns))

    facts = make_facts(times={"running": running}, batches=batches)

    assert appears == (found(facts, "stragglers") is not None)


def test_an_even_job_has_no_stragglers(make_facts: Any, make_spread: Callable[..., Any]) -> None:
    facts = make_facts(times={"running": make_spread((980, 50 * MS), (20, 450 * MS))})

    assert found(facts, "stragglers") is None
