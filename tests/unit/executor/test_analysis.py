"""tidegate analyze: shapes of a workload and what they cost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tidegate.cli import run
from tidegate.executor.analysis import Analysis, Simulation, analyse, chain_of
from tidegate.executor.executor import Executor

QUICK = Simulation(min_ms=1, max_ms=3, failure_rate=0.25, seed=7)


def analysed(executor: Executor, shape: str, work: object = QUICK, count: int = 24) -> Analysis:
    return analyse(executor, work, shape=shape, count=count, batch=8, pool=True, name="test")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", ["concurrency", "batch", "chain"])
def test_simulated_work_is_the_same_in_every_shape(executors: Callable[..., Executor], shape: str) -> None:
    analysis = analysed(executors(4), shape)

    assert analysis.items == analysis.succeeded + analysis.failed == 24
    # The seed decides which items fail, not the order in which they run.
    assert [link.index for link in analysis.links if not link.ok] == [
        link.index for link in analysed(executors(2), "concurrency").links if not link.ok
    ]
    assert 0 < analysis.failed < 24
    assert all(link.run_s >= 0.001 for link in analysis.links)
    assert analysis.ideal_s <= analysis.wall_s


def test_a_batch_waits_for_its_slowest_item(executors: Callable[..., Executor]) -> None:
    def uneven(number: int) -> None:
        time.sleep(0.04 if number % 8 == 0 else 0.0)

    analysis = analysed(executors(8), "batch", uneven)

    assert analysis.wall_s >= 3 * 0.04
    assert "batch-barrier" in [finding.code for finding in analysis.findings]


def test_a_chain_is_as_long_as_the_sum_of_its_links(executors: Callable[..., Executor]) -> None:
    analysis = analysed(executors(8), "chain", count=6)
    chain = chain_of(analysis, 8)

    assert chain.critical_path_s == pytest.approx(sum(link.run_s for link in analysis.links))
    assert chain.per_link_s == pytest.approx(chain.critical_path_s / 6)
    assert chain.slowest_s == max(link.run_s for link in analysis.links)
    assert analysis.wall_s >= chain.critical_path_s > chain.if_independent_s


def test_the_command_prints_one_document(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.executor.analysis.pool_effect.__defaults__", (1000, 1))
    code = run(["analyze", "-n", "6", "-c", "3", "-t", "chain", "--min-ms", "1", "--max-ms", "2", "--json"])
    document = json.loads(capsys.readouterr().out)

    assert code == 0
    assert (document["items"], document["shape"], len(document["links"])) == (6, "chain", 6)
    assert document["chain"]["critical_path_s"] > 0
    assert document["pool_effect"]["records_allocated_without"] > document["pool_effect"]["records_allocated_with"]


def test_the_command_runs_a_function_of_the_user(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.executor.analysis.pool_effect.__defaults__", (1000, 1))
    code = run(["analyze", "math:sqrt", "-n", "5", "-v", "-m"])
    printed = capsys.readouterr().out

    assert code == 0
    assert "5 succeeded" in printed
    assert "off in this run" in printed


@pytest.mark.parametrize("target", ["no_such_module:f", "math:no_such", "math:pi", "math"])
def test_the_command_says_what_it_cannot_find(capsys: pytest.CaptureFixture[str], target: str) -> None:
    assert run(["analyze", target]) == 2
    assert target.partition(":")[0] in capsys.readouterr().err
