"""Reports of jobs in a real ledger, with real telemetry beside them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from watched import World, failing

from tidegate import cli, report
from tidegate.collector.source import StreamSource
from tidegate.errors import JobNotFound
from tidegate.report import facts as facts_module


def test_what_is_said_of_items_is_exact(world: World) -> None:
    job_id, tickets = world.submit(items=200)
    world.work(job_id, tickets, settle=failing(0.2))

    made = report.build(world.ledger, job_id)

    items = made.to_dict()["items"]
    assert {name: items[name] for name in ("total", "done", "succeeded", "failed", "retries", "executions")} == {
        "total": 200,
        "done": 200,
        "succeeded": 160,
        "failed": 40,
        "retries": 80,
        "executions": 280,
    }
    assert made.to_dict()["times"]["running"]["count"] == 280
    assert made.to_dict()["errors"] == [{"type": "ValueError", "count": 40, "share": 1.0}]


def test_a_failure_shows_the_line_of_the_error_and_the_line_that_enqueued_it(world: World) -> None:
    job_id, tickets = world.submit(items=100)
    world.work(job_id, tickets, settle=failing(0.5, argument={"url": "http://shop/1"}))

    made = report.build(world.ledger, job_id)

    group = made.to_dict()["failures"]["groups"][0]
    assert (group["file"], group["line"], group["function"]) == ("/app/shop/fetch.py", 31, "fetch")
    assert group["count"] == 50
    assert group["samples"][0]["arguments"] == "{'url': 'http://shop/1'}"
    finding = next(finding for finding in made.findings if finding.code == "failure_rate")
    assert "/app/shop/fetch.py:31" in finding.evidence
    assert "/app/shop/views.py:88" in finding.evidence


def test_a_running_job_has_a_report(world: World) -> None:
    job_id, tickets = world.submit(items=200)
    world.work(job_id, tickets, batches=1)

    document = report.build(world.ledger, job_id).to_dict()

    assert document["job"]["ended"] is False
    assert document["items"]["done"] == 50
    assert document["items"]["pending"] == 150
    assert document["job"]["elapsed_s"] >= 0


def test_workers_are_sampled_from_the_stream_without_a_collector(world: World) -> None:
    job_id, tickets = world.submit(items=100)
    world.work(job_id, tickets, batches=1)
    world.tell("a", 1)
    world.tell("b", 1, memory_bytes=900 << 20)
    world.work(job_id, tickets)

    with closing(StreamSource(world.url)) as stream:
        made = report.build(world.ledger, job_id, stream)

    workers = made.to_dict()["workers_sampled"]
    assert [process["worker"] for process in workers["processes"]] == ["a", "b"]
    assert workers["records"] == 2
    assert [finding.code for finding in made.findings if "memory" in finding.code] == ["memory_near_mark"]


def test_without_telemetry_everything_about_items_is_still_there(world: World) -> None:
    job_id, tickets = world.submit()
    world.work(job_id, tickets, batches=1)
    while (stands := world.ledger.progress(job_id)).now_ms == stands.started_ms:
        pass  # all of it may fit into one millisecond, and then there is no average
    world.work(job_id, tickets)

    made = report.build(world.ledger, job_id)

    assert made.to_dict()["workers_sampled"]["records"] == 0
    assert made.to_dict()["concurrency"]["average"] > 0
    assert "200 succeeded (100 %)" in str(made)


def test_dead_letters_are_read_up_to_a_bound_and_the_report_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_module, "MAX_LETTERS", 30)
    job_id, tickets = world.submit(items=100)
    world.work(job_id, tickets, settle=failing(0.5))

    made = report.build(world.ledger, job_id)

    assert made.to_dict()["failures"]["cut"] is True
    assert made.to_dict()["failures"]["groups"][0]["count"] == 30
    assert made.to_dict()["errors"][0]["count"] == 50
    assert "of the first 30" in str(made)


def test_a_job_without_a_live_worker_is_found_from_the_ledger(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidegate.report.findings import job as rules

    monkeypatch.setattr(rules, "WORKER_GRACE_S", 0.0)
    job_id, _ = world.submit()
    alone = report.build(world.ledger, job_id)
    world.ledger.heartbeat("elsewhere", slots=1, ttl_ms=60_000, facts={"queues": "other"})
    elsewhere = report.build(world.ledger, job_id)
    world.ledger.heartbeat("here", slots=1, ttl_ms=60_000, facts={"queues": "x,tidegate"})
    served = report.build(world.ledger, job_id)

    assert "no_worker" in {finding.code for finding in alone.findings}
    assert "1 live worker processes serve other queues" in str(elsewhere).replace("\n    ", " ")
    assert "no_worker" not in {finding.code for finding in served.findings}


def test_a_parked_job_gives_its_reason(world: World) -> None:
    job_id, _ = world.submit()
    world.ledger.park(job_id, "no worker knows task shop.fetch")

    made = report.build(world.ledger, job_id)

    assert made.findings[0].code == "parked"
    assert made.findings[0].evidence == "no worker knows task shop.fetch"


def test_an_unknown_job_is_an_error(world: World) -> None:
    with pytest.raises(JobNotFound):
        report.build(world.ledger, "nope")


# -- the command -----------------------------------------------------------------------------------------------------


def run(world: World, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setenv("TIDEGATE_URL", world.url)
    return cli.run(["report", *arguments])


def test_the_command_prints_text_json_and_html(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    job_id, tickets = world.submit(items=100)
    world.work(job_id, tickets, settle=failing(0.5))

    assert run(world, monkeypatch, job_id) == 0
    text = capsys.readouterr().out
    assert run(world, monkeypatch, job_id, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert run(world, monkeypatch, job_id, "--html", str(tmp_path / "report.html")) == 0

    assert "50 failed (50 %)" in text
    assert max(map(len, text.splitlines())) <= 120
    assert document["items"]["failed"] == 50
    assert "</html>" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nope"], 4, "no job"),
        (["JOB", "--json", "--html", "x"], 2, "use one of the two"),
        (["JOB", "--html", "/nowhere/x.html"], 2, "cannot be written"),
        ([], 2, "JOB"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    job_id, _ = world.submit()

    exit_code = run(world, monkeypatch, *[job_id if argument == "JOB" else argument for argument in arguments])

    printed: Any = capsys.readouterr()
    assert exit_code == code
    assert said in printed.err
    assert "Traceback" not in printed.err
