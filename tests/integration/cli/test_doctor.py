"""``doctor`` and ``down``: what is configured, reachable and installed, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tidegate import Tidegate
from tidegate.embedded import EmbeddedServer, find_shared
from tidegate.ledger.port import Committed, Lease, Settlement
from tidegate.model.outcome import Outcome
from tidegate.model.wire import encode_results
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


def test_doctor_warns_when_what_is_kept_of_jobs_takes_a_large_part_of_the_server(
    run: Run, own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are the one thing on the server that grows with the work that was done."""
    monkeypatch.setenv("TIDEGATE_URL", own_server.url)
    with Tidegate(own_server.url) as gate:
        ledger = gate.ledger()
        ledger.client.config_set("maxmemory", 32 << 20)
        assert _checks(run("doctor", "--json"))["results"]["state"] == "ok"
        job = gate.task(lambda number: number).map([1])
        lease = ledger.claim(job.id, ticket=1, claimer="test/0", nonce="a", lease_ms=60_000)
        assert isinstance(lease, Lease)
        results = encode_results([0], [msgspec.Raw(msgspec.msgpack.encode(b"x" * (10 << 20)))])
        settled = Settlement(settled=1, outcomes={Outcome.SUCCEEDED: 1}, results=results)
        assert isinstance(ledger.commit(lease, settled, nonce="b", lease_ms=1000), Committed)

    ran = run("doctor", "--json")

    assert ran.code == 0
    check = _checks(ran)["results"]
    assert check["state"] == "note"
    assert "of 33,554,432 bytes" in check["detail"]
    assert "keep_results=False" in check["remedy"]


def test_who_may_not_look_at_the_servers_memory_is_told_so_and_all_is_well(
    run: Run, own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Tidegate(own_server.url) as gate:
        gate.task(lambda number: number).map([1])
        gate.ledger().client.execute_command("ACL", "SETUSER", "default", "-memory")
    monkeypatch.setenv("TIDEGATE_URL", own_server.url)

    ran = run("doctor", "--json")

    assert ran.code == 0
    assert "not known" in _checks(ran)["results"]["detail"]


def test_a_signing_key_that_no_app_would_take_is_named_and_never_shown(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "not signed" in _checks(run("doctor", "--json"))["signing"]["detail"]
    monkeypatch.setenv("TIDEGATE_SIGNING_KEY", "a secret of some length")
    assert _checks(run("doctor", "--json"))["signing"]["detail"] == "jobs are signed and checked"
    monkeypatch.setenv("TIDEGATE_SIGNING_KEY", "a secret of some length,hushhush")

    ran = run("doctor", "--json")

    assert ran.code == 2
    check = _checks(ran)["signing"]
    assert check["state"] == "bad"
    assert "shorter than" in check["detail"]
    assert "hushhush" not in ran.out


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
