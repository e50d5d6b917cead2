"""A server that is away, closed, full, empty, forgetful or unsuitable: a typed error in bounded time, and no password."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tidegate.embedded import EmbeddedServer
from tidegate.errors import (
    ConfigurationError,
    JobNotFound,
    LedgerDenied,
    LedgerFull,
    LedgerLost,
    LedgerUnavailable,
    LedgerUnsuitable,
)
from tidegate.ledger.connection import connect, safe_url
from tidegate.ledger.port import Lease, Settlement
from tidegate.ledger.redis import RedisLedger
from tidegate.ledger.scripts import OPERATIONS, load
from tidegate.model.job import BatchPayload, JobSpec, new_job_id
from tidegate.model.outcome import Outcome

SECRET = "hunter2"


def opened(ledger, **options) -> str:
    job_id = new_job_id()
    ledger.open(JobSpec(job_id=job_id, task="t", **options))
    return job_id


@pytest.mark.parametrize(
    "url",
    [
        f"redis://me:{SECRET}@127.0.0.1:1/0",
        f"unix://me:{SECRET}@/nowhere/at/all.sock?db=0",
        f"redis://127.0.0.1:1/0?password={SECRET}",
        f"sentinel://me:{SECRET}@127.0.0.1:1,127.0.0.1:2/main/0",
    ],
)
def test_nobody_at_the_address_is_said_without_the_password(url):
    with RedisLedger.from_url(url, tries=2) as ledger, pytest.raises(LedgerUnavailable) as caught:
        ledger.progress(new_job_id())
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "start the server" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:6379", "http://host", "redis://host:port", f"sentinel://u:{SECRET}@host"]
)
def test_an_address_that_makes_no_sense_is_a_configuration_error(url):
    with pytest.raises(ConfigurationError, match="ledger URL") as caught:
        RedisLedger.from_url(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        (f"redis://:{SECRET}@h:1/0", "redis://:***@h:1/0"),
        (f"rediss://me:{SECRET}@h/0", "rediss://me:***@h/0"),
        (f"redis://me:{SECRET}:x@h/0", "redis://me:***@h/0"),
        (f"redis://h/0?password={SECRET}&db=1", "redis://h/0?password=***&db=1"),
        (f"unix://me:{SECRET}@/a/b.sock", "unix://me:***@/a/b.sock"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert safe_url(url) == shown


def test_a_wrong_password_is_denied_and_not_retried(own_server: EmbeddedServer):
    admin = own_server.client()
    admin.config_set("requirepass", "right")
    seen = []

    def count(name, send):
        seen.append(name)
        return send()

    for password in ("", "password=" + SECRET):
        seen.clear()
        url = own_server.url + ("&" if "?" in own_server.url else "?") + password
        with RedisLedger.from_url(url, interceptor=count) as ledger, pytest.raises(LedgerDenied) as caught:
            ledger.progress(new_job_id())
        assert len(seen) == 1
        assert SECRET not in str(caught.value)


def test_a_user_without_the_permission_is_denied(own_server: EmbeddedServer):
    own_server.client().execute_command("ACL", "SETUSER", "guest", "on", f">{SECRET}", "+@all", "~other:*")
    client = own_server.client(username="guest", password=SECRET)
    with pytest.raises(LedgerDenied) as caught:
        opened(RedisLedger(client))
    assert SECRET not in str(caught.value)


def test_a_server_that_hangs_is_unavailable_in_bounded_time_and_then_works_again(own_server: EmbeddedServer):
    ledger = RedisLedger(connect(own_server.url, retries=0, reply_timeout_s=0.2), tries=2)
    with RedisLedger.from_url(own_server.url) as patient:
        job_id = opened(patient)
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(LedgerUnavailable):
            ledger.progress(job_id)
        assert time.monotonic() - started < 30
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert ledger.progress(job_id).total == 0
            return
        except LedgerUnavailable:  # 0.2 s are short when the machine is busy
            assert time.monotonic() < deadline


def test_a_full_server_refuses_new_work_and_drains_what_it_has(own_server: EmbeddedServer):
    ledger, admin = RedisLedger.from_url(own_server.url), own_server.client()
    job_id = opened(ledger)
    ticket = ledger.append(job_id, 0, [BatchPayload(2, b"x" * 1000)] * 4).tickets[0]
    lease = ledger.claim(job_id, ticket=ticket, claimer="w", nonce="n1", lease_ms=10_000)
    admin.config_set("maxmemory", 1)
    before = admin.dbsize()
    with pytest.raises(LedgerFull, match="out of memory"):
        ledger.append(job_id, 1, [BatchPayload(1, b"x")])
    with pytest.raises(LedgerFull):
        opened(ledger)
    assert admin.dbsize() == before
    assert ledger.progress(job_id).total == 8

    assert ledger.renew([lease], lease_ms=10_000) == [True]
    assert ledger.touch_ticket(job_id, ticket)
    part = Settlement(
        settled=1, bits=b"\x01", outcomes={Outcome.FAILED: 1}, executions=1, failures=b"f" * 100, results=b"r" * 100,
        traces={"a": "b"}, errors={"E": 1}, stats={"running:1": 1}, hand_back=True,
    )  # fmt: skip
    ledger.commit(lease, part, nonce="n2", lease_ms=10_000)
    lease = ledger.claim(job_id, ticket=ticket, claimer="w", nonce="n3", lease_ms=10_000)
    rest = Settlement(settled=1, bits=b"\x02", outcomes={Outcome.SUCCEEDED: 1}, executions=1)
    answer = ledger.commit(lease, rest, nonce="n4", lease_ms=10_000, claim_next=True, ticket=ticket)
    assert isinstance(answer.next, Lease)
    ledger.sweep(job_id, slots=4, stall_ms=1000)
    ledger.pause(job_id)
    ledger.resume(job_id)
    ledger.seal(job_id, 1)
    ledger.cancel(job_id)
    ledger.commit(answer.next, Settlement(settled=0, hand_back=True), nonce="n5", lease_ms=10_000)
    assert ledger.progress(job_id).ended
    admin.config_set("maxmemory", 0)
    opened(ledger)


def test_a_server_that_forgets_its_scripts_is_told_again(desk):
    job_id = desk.job(sizes=(1,) * 5)
    for _ in range(5):
        desk.client.script_flush()
        lease = desk.claim(job_id)
        desk.client.script_flush()
        desk.finish(lease)
    assert desk.ledger.progress(job_id).ended


def test_connections_that_are_killed_all_the_time_cost_nothing_but_time(desk):
    stop = threading.Event()
    killed = []

    def kill() -> None:
        with connect(desk.url) as killer:
            while not stop.is_set():
                killed.append(killer.client_kill_filter(_type="normal", skipme=True))
                stop.wait(0.01)

    job_id = desk.job(sizes=(2,) * 50)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        desk.ledger._caller.tries = 50
        for number in range(50):
            if number % 10 == 0:
                before = sum(killed)
                while sum(killed) == before:
                    stop.wait(0.001)
            desk.finish(desk.try_claim(job_id, ticket=desk.tickets[job_id][0]))
    finally:
        stop.set()
        killer.join()
    progress = desk.ledger.progress(job_id)
    assert (progress.done, progress.attempts, progress.lost_leases) == (100, 100, 0)


def test_a_server_that_came_back_empty_has_lost_the_job_and_says_so_once(desk):
    known, unknown = desk.job(), new_job_id()
    desk.client.flushall()
    with pytest.raises(LedgerLost, match="came back without its data"):
        desk.ledger.append(known, 1, [BatchPayload(1, b"x")])
    with pytest.raises(JobNotFound):
        desk.ledger.progress(unknown)
    desk.jobs.clear()
    desk.ledger.open(JobSpec(job_id=known, task="mod:task"))
    assert desk.ledger.progress(known).total == 0


def test_a_holder_whose_server_came_back_empty_is_told(desk, settle):
    lease = desk.claim(desk.job())
    desk.client.flushall()
    with pytest.raises(LedgerLost):
        desk.try_commit(lease, settle.whole(lease))
    desk.jobs.clear()


def test_a_server_that_lost_only_this_job_has_lost_data_too(desk):
    job_id = desk.job()
    desk.client.unlink(*desk.client.keys(f"tg:{{{job_id}}}:*"))
    with pytest.raises(LedgerLost, match="gone before its time"):
        desk.ledger.progress(job_id)
    with pytest.raises(JobNotFound):
        desk.ledger.progress(job_id)


def test_a_job_past_its_time_is_not_found_rather_than_lost(desk):
    job_id = desk.job(sizes=(), sealed=False, ttl_s=0.001)
    desk.client.pexpire(f"tg:{{{job_id}}}:meta", 1)
    while desk.client.exists(f"tg:{{{job_id}}}:meta"):
        pass
    with pytest.raises(JobNotFound):
        desk.ledger.progress(job_id)


def test_a_server_that_throws_keys_away_is_unsuitable(own_server: EmbeddedServer):
    with RedisLedger.from_url(own_server.url) as ledger:
        facts = ledger.check()
        assert facts["maxmemory_policy"] == "noeviction"
        assert facts["appendonly"] == "yes"
        own_server.client().config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(LedgerUnsuitable, match="noeviction"):
            ledger.check()


def test_a_server_that_is_too_old_is_unsuitable(ledger_url):
    def old(name, send):
        return {**send(), "redis_version": "5.0.7"}

    with RedisLedger.from_url(ledger_url, interceptor=old) as ledger, pytest.raises(LedgerUnsuitable, match=r"6\.2"):
        ledger.check()


def test_a_job_of_another_layout_is_left_alone(desk, settle):
    job_id = desk.job(sizes=(1, 1))
    lease = desk.claim(job_id)
    desk.client.hset(f"tg:{{{job_id}}}:meta", "layout", "2")
    before = desk.dump(job_id)
    for call in (
        lambda: desk.try_claim(job_id, "other"),
        lambda: desk.try_commit(lease, settle.whole(lease)),
        lambda: desk.ledger.renew([lease], lease_ms=1),
        lambda: desk.sweep(job_id),
        lambda: desk.ledger.cancel(job_id),
        lambda: desk.ledger.seal(job_id, 1),
    ):
        with pytest.raises(LedgerUnsuitable, match="another version"):
            call()
    assert desk.dump(job_id) == before


def test_scripts_also_compile_for_servers_that_know_no_flags(desk):
    for name in OPERATIONS:
        assert not load(name).without_flags().text.startswith("#!")
        desk.client.script_load(load(name).without_flags().text)


def test_what_was_synced_is_on_the_disk(own_server: EmbeddedServer):
    ledger = RedisLedger.from_url(own_server.url)
    job_id = opened(ledger)
    ledger.append(job_id, 0, [BatchPayload(7, b"x")])
    synced = ledger.sync(job_id)
    assert (synced.next_chunk, synced.items, synced.sealed) == (1, 7, False)
    own_server.kill()
    own_server.start()
    with RedisLedger.from_url(own_server.url) as after:
        assert after.progress(job_id).total == 7
    with pytest.raises(JobNotFound):
        ledger.sync(new_job_id())


def test_a_server_without_an_append_only_file_cannot_sync(desk):
    with pytest.raises(LedgerUnsuitable, match="appendonly"):
        desk.ledger.sync(desk.job())


def test_a_forked_child_opens_connections_of_its_own(desk):
    job_id = desk.job(sizes=(1, 1))
    lease = desk.claim(job_id)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            inside = desk.ledger.claim(
                job_id, ticket=desk.tickets[job_id][0], claimer="c", nonce="child", lease_ms=9999
            )
            status = 0 if isinstance(inside, Lease) and inside.batch == 1 else 2
        finally:
            os._exit(status)
    for _ in range(20):
        assert desk.ledger.renew([lease], lease_ms=10_000) == [True]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert desk.ledger.progress(job_id).running_batches == 2


def test_threads_share_a_ledger(desk):
    job_id = desk.job(sizes=(1,) * 200)
    ticket = desk.tickets[job_id][0]
    done = []

    def work(name: str) -> None:
        number = 0
        while True:
            number += 1
            lease = desk.ledger.claim(job_id, ticket=ticket, claimer=name, nonce=f"{name}x{number}", lease_ms=60_000)
            if not isinstance(lease, Lease):
                return
            one = Settlement(settled=1, outcomes={Outcome.SUCCEEDED: 1}, executions=1)
            desk.ledger.commit(lease, one, nonce=f"{name}y{number}", lease_ms=60_000)
            done.append(lease.batch)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(200))
