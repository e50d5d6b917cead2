"""``doctor`` and ``down``: what is configured, reachable and installed, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidegate import Tidegate
from tidegate.embedded import EmbeddedServer, find_shared
from tidegate.settings import load_settings

Run = Callable[..., Any]


def _checks(ran: Any) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in ran.document["checks"]}


def test_a_good_installation_is_well(run: Run, shop: Path) -> None:
    ran = run("doctor", "--json")

    assert ran.code == 0
    assert ran.document["ok"]
    checks = _checks(ran)
    assert {"python", "executor", "libraries", "settings", "address", "server", "workers", "broker"} <= set(checks)
    assert checks["workers"]["state"] == "note"  # none is running
    assert "tidegate worker" in checks["workers"]["remedy"]
    assert "durability" in run("doctor").out


def test_doctor_starts_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEGATE_URL", raising=False)
    monkeypatch.setenv("TIDEGATE_STATE_DIR", str(tmp_path))

    checks = _checks(run("doctor", "--json"))

    assert checks["address"]["state"] == "note"
    assert "is started when one is needed" in checks["address"]["detail"]
    assert "server" not in checks
    assert find_shared(load_settings()) is None


def test_the_embedded_server_is_shown_and_stopped_and_its_jobs_are_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEGATE_URL", raising=False)
    monkeypatch.setenv("TIDEGATE_STATE_DIR", str(tmp_path))
    assert run("down").out == "no embedded server is running\n"
    try:
        with Tidegate() as gate:
            job = gate.task(lambda number: number).map([1, 2])
        assert "embedded server, process" in _checks(run("doctor", "--json"))["address"]["detail"]
    finally:
        stopped = run("down", "--json")

    assert stopped.document["stopped"] is True
    assert find_shared(load_settings()) is None
    try:
        assert [found["job"] for found in run("jobs", "--json").document] == [job.id]
    finally:
        run("down")


def test_a_server_that_throws_keys_away_is_bad(
    run: Run, own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    monkeypatch.setenv("TIDEGATE_URL", own_server.url)

    ran = run("doctor", "--json")

    assert ran.code == 4
    assert _checks(ran)["server"]["state"] == "bad"
    assert "noeviction" in _checks(ran)["server"]["remedy"]


def test_a_broker_that_does_not_answer_is_bad(run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_BROKER_URL", "redis://:hidden@127.0.0.1:1/0")

    ran = run("doctor", "--json")

    assert ran.code == 4
    assert _checks(ran)["broker"]["state"] == "bad"
    assert "hidden" not in ran.out
