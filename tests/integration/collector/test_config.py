"""What config/ gives to Prometheus and Grafana fits what a real collector exports, and what their tools accept."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from watched import World, times

from tidegate import report
from tidegate.collector.web.server import WebServer

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "config"
MS = 1_000_000
#: A busy machine answers too.
PATIENCE_S = 60.0


def loaded(name: str) -> Any:
    return yaml.safe_load((CONFIG / name).read_text())


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CONFIG / "grafana/dashboards/tidegate.json").read_text())
    return document


def alerts() -> list[dict[str, Any]]:
    return [rule for group in loaded("alerts.yml")["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    targets = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    return [*(rule["expr"] for rule in alerts()), *targets]


@pytest.fixture
def exported(world: World, make_collector: Any) -> dict[str, set[str]]:
    """Label names by metric name, scraped over HTTP from a collector that has seen one of everything."""
    stats = times(**{name: [MS] for name in ("ready", "queued", "limited", "backoff", "running", "settling")})
    world.tell("a", 1, lane={"stats": stats, "errors": {"ValueError": 1}, "limits": {"api": 3}})
    world.submit()
    with make_collector() as collector:
        server = WebServer(collector, lambda job_id: report.build(world.ledger, job_id), port=0)
        with server:
            text = httpx.get(f"{server.address}/metrics", timeout=PATIENCE_S).text
    names: dict[str, set[str]] = {"up": {"job", "instance"}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels, ("job", "instance"))
    return names


def test_every_metric_and_label_in_alerts_and_dashboard_is_exported(exported: dict[str, set[str]]) -> None:
    for expression in expressions():
        metrics = re.findall(r"\b(?:tidegate_\w+|up)\b", expression)
        assert metrics, expression
        assert set(metrics) <= set(exported), expression
        labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", expression))
        labels |= {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in re.split(r",\s*", group)}
        for metric, selector in re.findall(r"\b(tidegate_\w+)(\{[^}]*\})?", expression):
            used = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", selector))
            assert used <= exported[metric], f"{metric}{selector}"
        assert labels <= set().union(*(exported[metric] for metric in metrics)), expression


def test_every_metric_says_what_it_is_in_base_units(world: World, make_collector: Any) -> None:
    world.tell("a", 1)
    with make_collector() as collector:
        families = list(collector.metrics.collect())

    for family in families:
        assert re.fullmatch(r"tidegate_[a-z_]+", family.name)
        assert family.documentation[0].isupper()
        assert not re.search(r"_(ms|ns|millis|mib|kb|percent)(_|$)", family.name)
    assert len({family.name for family in families}) == len(families)


def test_every_alert_has_a_severity_a_summary_and_a_runbook_that_exists() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"].endswith(".")
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / file).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, rule["alert"]


def test_prometheus_scrapes_the_collector_and_loads_the_alerts() -> None:
    config = loaded("prometheus.yml")

    assert config["rule_files"] == ["alerts.yml"]
    assert config["scrape_configs"][0]["static_configs"] == [{"targets": ["collector:9464"]}]
    assert config["scrape_configs"][0]["job_name"] == "tidegate"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("arguments", [("config", "prometheus.yml"), ("rules", "alerts.yml")])
def test_prometheus_own_tool_accepts_both_files(arguments: tuple[str, str]) -> None:
    command = ["promtool", "check", arguments[0], arguments[1]]
    done = subprocess.run(command, cwd=CONFIG, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


CASES = {
    "TidegateNoWorker": [("tidegate_ready_batches", "5+0x20"), ("tidegate_workers", "0+0x20")],
    "TidegateJobParked": [('tidegate_jobs{state="parked"}', "1+0x20")],
    "TidegateItemsFail": [
        ('tidegate_items_total{task="t",outcome="failed"}', "0+20x40"),
        ('tidegate_items_total{task="t",outcome="succeeded"}', "0+100x40"),
    ],
    "TidegateMemoryNearMark": [
        ('tidegate_worker_memory_bytes{worker="w"}', "80+0x20"),
        ('tidegate_worker_memory_limit_bytes{worker="w"}', "100+0x20"),
    ],
}
QUIET = {
    "TidegateNoWorker": [("tidegate_ready_batches", "5+0x20"), ("tidegate_workers", "1+0x20")],
    "TidegateJobParked": [('tidegate_jobs{state="parked"}', "0+0x20")],
    "TidegateItemsFail": [
        ('tidegate_items_total{task="t",outcome="failed"}', "0+9x40"),
        ('tidegate_items_total{task="t",outcome="succeeded"}', "0+100x40"),
    ],
    "TidegateMemoryNearMark": [
        ('tidegate_worker_memory_bytes{worker="w"}', "80+0x20"),
        ('tidegate_worker_memory_limit_bytes{worker="w"}', "0+0x20"),
    ],
}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("fires", [True, False])
@pytest.mark.parametrize("alert", CASES)
def test_alerts_fire_on_their_evidence_and_not_without(tmp_path: Path, alert: str, fires: bool) -> None:
    series = (CASES if fires else QUIET)[alert]
    group = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                "eval_time": "38m" if alert == "TidegateItemsFail" else "15m",
                "exp_samples": [{"labels": "{}", "value": int(fires)}],
            }
        ],
    }
    document = {"rule_files": [str(CONFIG / "alerts.yml")], "evaluation_interval": "1m", "tests": [group]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document))

    command = ["promtool", "test", "rules", "test.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


# -- Grafana, against the fields that its schema requires --------------------------------------------------------------


def test_the_dashboard_has_what_grafana_requires() -> None:
    board = dashboard()

    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= set(board)
    assert board["schemaVersion"] >= 36
    assert "id" not in board  # Grafana gives one
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in board["panels"]:
        assert panel["type"] in ("row", "stat", "timeseries")
        assert panel["title"]
        if panel["type"] != "row":
            assert {target["refId"] for target in panel["targets"]}
            assert panel["datasource"] == {"type": "prometheus", "uid": "tidegate-prometheus"}
            assert {"defaults", "overrides"} <= set(panel["fieldConfig"])


def test_panels_lie_on_the_grid_and_not_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        grid = panel["gridPos"]
        assert 0 <= grid["x"] < grid["x"] + grid["w"] <= 24
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells


def test_provisioning_names_the_data_source_and_the_folder_of_the_dashboard() -> None:
    sources = loaded("grafana/provisioning/datasources/prometheus.yml")
    providers = loaded("grafana/provisioning/dashboards/tidegate.yml")

    assert sources["apiVersion"] == providers["apiVersion"] == 1
    assert sources["datasources"][0]["uid"] == "tidegate-prometheus"
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    assert providers["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"
