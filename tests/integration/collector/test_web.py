"""The collector's pages over real HTTP: what they say, whom they answer, and what they refuse."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from watched import World, failing

from tidegate import report
from tidegate.collector.service import Collector
from tidegate.collector.web import app
from tidegate.collector.web.app import Pages
from tidegate.collector.web.server import WebServer
from tidegate.errors import ConfigurationError

#: A busy machine answers too.
PATIENCE_S = 60.0
TOKEN = "a-token-of-the-test"


def web(world: World, collector: Collector, **options: Any) -> WebServer:
    return WebServer(collector, lambda job_id: report.build(world.ledger, job_id), port=0, **options)


@pytest.fixture
def collector(make_collector: Any) -> Iterator[Collector]:
    with make_collector() as running:
        yield running


@pytest.fixture
def http(world: World, collector: Collector) -> Iterator[httpx.Client]:
    with web(world, collector) as server, httpx.Client(base_url=server.address, timeout=PATIENCE_S) as client:
        yield client


def routes(collector: Collector) -> list[str]:
    pages = Pages(collector, lambda job_id: None)  # type: ignore[arg-type, return-value]
    return [route.path.replace("{job_id}", "x").replace("{name}", "charts.js") for route in pages.routes()]


def test_health_metrics_and_overview(world: World, make_collector: Any) -> None:
    world.tell("a", 1)
    with (
        make_collector() as collector,
        web(world, collector) as server,
        httpx.Client(base_url=server.address, timeout=PATIENCE_S) as http,
    ):
        health, metrics, overview = http.get("/healthz"), http.get("/metrics"), http.get("/api/overview?window=5m")

    assert (health.status_code, health.text) == (200, "ok\n")
    assert 'tidegate_items_total{outcome="succeeded",task="shop.fetch"} 10.0' in metrics.text
    assert metrics.headers["content-type"].startswith("text/plain")
    assert overview.json()["totals"]["succeeded"] == 10
    assert overview.json()["now"]["workers"] == 1
    assert len(overview.json()["history"]["at_ms"]) == 300


def test_metrics_come_in_the_openmetrics_form_when_asked_for(http: httpx.Client) -> None:
    answer = http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_jobs_and_their_reports(world: World, make_collector: Any) -> None:
    job_id, tickets = world.submit(items=100)
    world.work(job_id, tickets, settle=failing(0.5))
    with (
        make_collector() as collector,
        web(world, collector) as server,
        httpx.Client(base_url=server.address, timeout=PATIENCE_S) as http,
    ):
        rows = http.get("/api/jobs?limit=1").json()["jobs"]
        job = http.get(f"/api/jobs/{job_id}").json()
        document = http.get(f"/api/jobs/{job_id}/report").json()
        page = http.get(f"/jobs/{job_id}")
        kept = http.get(f"/api/jobs/{job_id}/report.html")

    assert [row["id"] for row in rows] == [job_id]
    assert job["outcomes"]["failed"] == 50
    assert document["items"]["failed"] == 50
    assert "50 % of the items did not succeed" in page.text
    assert kept.headers["content-disposition"] == f'attachment; filename="tidegate-{job_id}.html"'


def test_events_bring_the_overview_and_the_jobs(world: World, make_collector: Any) -> None:
    job_id, _ = world.submit(task="<b>live</b>")
    with (
        make_collector() as collector,
        web(world, collector) as server,
        httpx.stream("GET", f"{server.address}/api/events", timeout=PATIENCE_S) as answer,
    ):
        data = next(line for line in answer.iter_lines() if line.startswith("data:"))

    rows = json.loads(data.removeprefix("data:"))["job_rows"]
    assert [(row["id"], row["task"]) for row in rows] == [(job_id, "<b>live</b>")]
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_the_number_of_live_pages_is_bounded(
    world: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_EVENT_READERS", 1)

    def status(address: str) -> int:
        with httpx.stream("GET", f"{address}/api/events", timeout=PATIENCE_S) as answer:
            return answer.status_code

    with web(world, collector) as server:
        with httpx.stream("GET", f"{server.address}/api/events", timeout=PATIENCE_S) as first:
            lines = first.iter_lines()  # kept: the connection is closed with its iterator
            next(lines)
            assert status(server.address) == 503
        deadline = time.monotonic() + PATIENCE_S
        while (last := status(server.address)) == 503 and time.monotonic() < deadline:
            time.sleep(0.05)  # until the server notices that the first reader has gone
    assert last == 200


def test_every_answer_carries_the_security_headers(http: httpx.Client, collector: Collector) -> None:
    for path in [*routes(collector), "/nope", "/jobs/..%2f"]:
        if path == "/api/events":
            continue
        headers = http.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_nothing_can_be_changed(http: httpx.Client, collector: Collector, method: str) -> None:
    for path in routes(collector):
        assert http.request(method, path).status_code == 405


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/jobs?limit=0", 400),
        ("/api/jobs?limit=101", 400),
        ("/api/jobs?limit=-1", 400),
        ("/api/jobs?limit=1e9", 400),
        ("/api/jobs?limit=99999999999999999999", 400),
        ("/api/jobs?limit=٣", 400),
        ("/api/overview?window=99d", 400),
        ("/api/jobs?x=" + "y" * 2000, 414),
        ("/api/jobs/unknown", 404),
        ("/api/jobs/unknown/report", 404),
        ("/jobs/unknown", 404),
        ("/jobs/" + "x" * 65, 404),
        ("/jobs/{x}:meta", 404),
        ("/jobs/%00", 404),
        ("/static/app.py", 404),
        ("/static/../guard.py", 404),
        ("/static/..%2fguard.py", 404),
        ("/static/%2e%2e/templates/base.html", 404),
        ("/static//etc/passwd", 404),
        ("/docs", 404),
    ],
)
def test_nonsense_is_refused_shortly(http: httpx.Client, path: str, status: int) -> None:
    answer = http.get(path)

    assert answer.status_code == status
    assert len(answer.content) < 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", ""])
def test_on_loopback_only_its_own_name_is_answered(http: httpx.Client, host: str) -> None:
    assert http.get("/api/jobs", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9464", "127.0.0.1:1", "[::1]:9464"])
def test_all_names_of_loopback_are_answered(http: httpx.Client, host: str) -> None:
    assert http.get("/api/jobs", headers={"host": host}).status_code == 200


# -- a token ---------------------------------------------------------------------------------------------------------


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


def test_with_a_token_every_route_but_health_wants_it(world: World, collector: Collector) -> None:
    with (
        web(world, collector, token=TOKEN) as server,
        httpx.Client(base_url=server.address, timeout=PATIENCE_S) as http,
    ):
        answers = {path: http.get(path).status_code for path in routes(collector)}

    assert answers.pop("/healthz") == 200
    assert set(answers.values()) == {401}


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (basic(TOKEN), 200),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer", 401),
        (TOKEN, 401),
        (basic(""), 401),
        ("Basic !!!", 401),
        ("Basic", 401),
        (f"Digest {TOKEN}", 401),
    ],
)
def test_the_token_is_a_bearer_token_or_a_password(
    world: World, collector: Collector, authorization: str, status: int
) -> None:
    with (
        web(world, collector, token=TOKEN) as server,
        httpx.Client(base_url=server.address, timeout=PATIENCE_S) as http,
    ):
        assert http.get("/metrics", headers={"authorization": authorization}).status_code == status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_beyond_loopback_a_token_or_an_explicit_word_is_needed(world: World, collector: Collector, host: str) -> None:
    with pytest.raises(ConfigurationError, match="TIDEGATE_COLLECTOR_TOKEN"):
        web(world, collector, host=host)


def test_beyond_loopback_it_listens_when_told_to(world: World, collector: Collector) -> None:
    with web(world, collector, host="0.0.0.0", allow_anybody=True) as server:
        port = server.address.rpartition(":")[2]
        assert (
            httpx.get(
                f"http://127.0.0.1:{port}/healthz", headers={"host": "collector:9464"}, timeout=PATIENCE_S
            ).status_code
            == 200
        )


def test_a_port_in_use_is_an_error_that_says_what_to_do(world: World, collector: Collector) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match="choose another --port"),
    ):
        WebServer(collector, lambda job_id: report.build(world.ledger, job_id), port=taken.getsockname()[1])


def _listening() -> set[int]:
    """Ports at which this process listens."""
    return {one.laddr.port for one in psutil.Process().net_connections() if one.status == psutil.CONN_LISTEN}


def test_stopping_ends_live_pages_and_frees_the_port(world: World, collector: Collector) -> None:
    server = web(world, collector)
    server.start()
    port = int(server.address.rpartition(":")[2])
    with httpx.stream("GET", f"{server.address}/api/events", timeout=PATIENCE_S) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert port in _listening()
        server.stop()
        server.stop()
        assert not any(line.startswith("error") for line in lines)
    # Not by taking the port again: another process of this machine may have it by now.
    assert port not in _listening()
