"""Reports kept for a moment: pages that reload cost little, and nothing grows."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.collector.web import reports
from tidegate.errors import JobNotFound


class Made:
    """Counts what it was asked to make."""

    def __init__(self) -> None:
        self.jobs: list[str] = []

    def __call__(self, job_id: str) -> Any:
        self.jobs.append(job_id)
        if job_id == "unknown":
            raise JobNotFound("no such job")
        return object()


def test_a_report_is_made_once_for_many_looks() -> None:
    made = Made()
    cache = reports.ReportCache(made)

    assert cache.get("a") is cache.get("a")
    assert cache.get("b") is not cache.get("a")
    assert made.jobs == ["a", "b"]


def test_an_old_report_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "KEEP_S", 0.0)
    made = Made()
    cache = reports.ReportCache(made)

    assert cache.get("a") is not cache.get("a")


def test_the_number_of_kept_reports_is_bounded_and_errors_are_not_kept() -> None:
    made = Made()
    cache = reports.ReportCache(made)
    for number in range(100):
        cache.get(str(number))
    for _ in range(2):
        with pytest.raises(JobNotFound):
            cache.get("unknown")

    assert len(cache._kept) == reports.KEEP
    assert made.jobs.count("unknown") == 2
