"""``tidegate collector`` and ``tidegate top``."""

from __future__ import annotations

import json
from contextlib import closing

import httpx
import pytest
from watched import World, failing

from tidegate import Tidegate, cli
from tidegate.cli.collector import serving
from tidegate.errors import ConfigurationError, LedgerUnavailable

#: A busy machine answers too.
PATIENCE_S = 60.0


def test_serving_is_a_whole_collector_for_as_long_as_the_block_lasts(world: World) -> None:
    world.tell("a", 1)
    job_id, tickets = world.submit(items=100)
    world.work(job_id, tickets, settle=failing(0.5))

    with closing(Tidegate(world.url)) as gate, serving(gate, port=0) as server:
        metrics = httpx.get(f"{server.address}/metrics", timeout=PATIENCE_S)
        page = httpx.get(f"{server.address}/jobs/{job_id}", timeout=PATIENCE_S)

    assert 'tidegate_items_total{outcome="succeeded",task="shop.fetch"} 10.0' in metrics.text
    assert "50 % of the items did not succeed" in page.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.address, timeout=PATIENCE_S)


def test_serving_asks_for_the_configured_token(world: World) -> None:
    with closing(Tidegate(world.url, collector_token="secret-word")) as gate, serving(gate, port=0) as server:
        without = httpx.get(f"{server.address}/metrics", timeout=PATIENCE_S)
        knowing = httpx.get(
            f"{server.address}/metrics", headers={"authorization": "Bearer secret-word"}, timeout=PATIENCE_S
        )

    assert (without.status_code, knowing.status_code) == (401, 200)
    assert "secret-word" not in repr(gate.settings)


def test_serving_refuses_the_network_without_a_token(world: World) -> None:
    with (
        closing(Tidegate(world.url, collector_host="0.0.0.0")) as gate,
        pytest.raises(ConfigurationError, match="TIDEGATE_COLLECTOR_TOKEN"),
        serving(gate, port=0),
    ):
        raise AssertionError("it listens")


def test_no_ledger_is_an_error_and_the_port_is_free_again(unused_port: int) -> None:
    for _ in range(2):
        with (
            closing(Tidegate("redis://127.0.0.1:1/0")) as gate,
            pytest.raises(LedgerUnavailable, match="start the server"),
            serving(gate, port=unused_port),
        ):
            raise AssertionError("it serves")


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "TIDEGATE_COLLECTOR_TOKEN"),
        (["--host", "no.such.host.invalid", "--allow-anybody"], "cannot listen"),
        (["--port", "70000"], "port"),
    ],
)
def test_nonsense_is_refused_with_exit_code_2(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("TIDEGATE_URL", world.url)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test runner keeps its own

    assert cli.run(["collector", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_top_prints_one_look(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TIDEGATE_URL", world.url)
    world.tell("a", 1, host="box\x1b[31m", task="shop.fetch")
    job_id, tickets = world.submit(task="[red]x[/red]", items=100)
    world.work(job_id, tickets, batches=1)

    assert cli.run(["top", "--once"]) == 0
    text = capsys.readouterr().out
    assert cli.run(["top", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)

    assert "1 workers" in text
    assert "4 of 8 running" in text
    assert "box\\x1b[31m" in text
    assert "[red]x[/red]" in text
    assert "50/100" in text
    assert document["now"]["running"] == 4
    assert [row["id"] for row in document["job_rows"]] == [job_id]
    assert document["workers"] == [{"worker": "a", "host": "box\\x1b[31m", "pid": 41}]


def test_top_on_an_empty_server_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDEGATE_URL", world.url)

    assert cli.run(["top", "--once"]) == 0
    assert "no worker was heard of lately" in capsys.readouterr().out
