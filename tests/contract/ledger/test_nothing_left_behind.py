"""Keys: one table, and after a job's time to live nothing of it."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from tidegate.ledger import keys
from tidegate.ledger.port import Lease, Settlement
from tidegate.ledger.scripts import OPERATIONS, load
from tidegate.model.outcome import Outcome

SCRIPTS = resources.files("tidegate.ledger.scripts")


def test_the_scripts_and_the_table_know_the_same_keys():
    text = SCRIPTS.joinpath("include", "job.lua").read_text()
    assert {"meta", *re.findall(r"PREFIX \.\. '([a-z]+)'", text)} == set(keys.JOB_KEYS)
    for name in keys.JOB_KEYS:
        assert f"tg:{{JOB}}:{name} " in keys.__doc__
    function = text.partition("local function every_key()")[2].partition("end")[0]
    assert len(re.findall(r"[A-Z]{4,}", function)) == len(keys.JOB_KEYS)


def test_only_the_table_builds_keys():
    package = resources.files("tidegate")
    guilty = [
        path.name
        for path in package.joinpath("ledger").iterdir()
        if path.name.endswith(".py") and path.name != "keys.py" and re.search(r"[bf\"']tg:", path.read_text())
    ]
    assert guilty == []


def test_every_script_states_its_contract_and_is_used():
    files = {path.name.removesuffix(".lua") for path in SCRIPTS.iterdir() if path.name.endswith(".lua")}
    assert files == set(OPERATIONS)
    for name in OPERATIONS:
        head = load(name).text.partition("]]")[0]
        assert head.startswith("#!lua")
        for word in (f"--[[ {name}: ", "\nKEYS  ", "\nARGV  ", "\nReturns "):
            assert word in head, (name, word)


def test_only_what_makes_new_work_is_refused_when_the_server_is_full():
    refused = {name for name in OPERATIONS if re.match(r"#!lua\n", load(name).text)}
    assert refused == {"announce", "open", "append"}


def a_life(desk, **options):
    """A job that touches every kind of key."""
    job_id = desk.job(sizes=(4, 4, 4), **options)
    lease = desk.claim(job_id)
    failure = Settlement(
        settled=1, bits=b"\x01", outcomes={Outcome.FAILED: 1}, executions=1, results=b"r", failures=b"f",
        traces={"a": "b"}, errors={"E": 1}, stats={"running:1": 1}, hand_back=True, attempts=b"\x01" * 4,
        crashes=b"\x01" * 4,
    )  # fmt: skip
    desk.commit(lease, failure)
    desk.commit(desk.claim(job_id), Settlement(settled=0, hand_back=True, delay_ms=1))
    return job_id


def names(desk, job_id):
    return {key.decode().rpartition(":")[2] for key in desk.client.keys(f"tg:{{{job_id}}}:*")}


def test_every_key_of_a_job_at_work_has_a_time_to_live(desk):
    job_id = a_life(desk)
    desk.claim(job_id)
    desk.skew(61_000)
    desk.claim(job_id)
    assert names(desk, job_id) >= {"bits", "attempts", "crashes", "delayed", "lease", "dead", "traces", "recent"}
    for name in names(desk, job_id):
        assert 0 < desk.client.pttl(keys.job_key(job_id, name)) <= keys.IDLE_MS, name


def test_every_key_of_an_ended_job_lives_for_its_time_and_no_longer(desk):
    job_id = a_life(desk, ttl_s=100)
    desk.ledger.cancel(job_id)
    assert desk.ledger.progress(job_id).ended
    for name in names(desk, job_id):
        assert 0 < desk.client.pttl(keys.job_key(job_id, name)) <= 100_000, name


def test_nothing_that_is_said_to_an_ended_job_makes_a_key_that_stays(desk, settle):
    job_id = a_life(desk, ttl_s=100)
    lease = desk.claim(job_id)
    desk.ledger.cancel(job_id)
    desk.commit(lease, Settlement(settled=0, hand_back=True))
    assert desk.ledger.progress(job_id).ended
    desk.client.unlink(keys.job_key(job_id, "seen"))
    ticket = desk.tickets[job_id][0]
    desk.try_claim(job_id, "late", ticket=ticket)
    desk.try_commit(lease, settle.whole(lease), claim_next=True, ticket=ticket)
    desk.ledger.renew([lease], lease_ms=1000)
    desk.ledger.touch_ticket(job_id, ticket)
    desk.sweep(job_id)
    for verb in (desk.ledger.cancel, desk.ledger.pause, desk.ledger.resume):
        verb(job_id)
    desk.ledger.park(job_id, "late")
    desk.ledger.seal(job_id, 1)
    for name in names(desk, job_id):
        assert 0 < desk.client.pttl(keys.job_key(job_id, name)) <= 100_000, name


@pytest.mark.parametrize("ending", ["done", "cancelled", "abandoned"])
def test_a_hundred_jobs_later_the_keyspace_is_as_before(desk, ending):
    desk.ledger.incarnation()
    before = set(desk.client.keys())
    for _ in range(100):
        job_id = desk.job(sizes=(1, 1), sealed=ending != "abandoned", ttl_s=0.001)
        lease = desk.claim(job_id)
        if ending == "done":
            while isinstance(lease, Lease):
                answer = desk.commit(
                    lease, Settlement(settled=1, outcomes={Outcome.SUCCEEDED: 1}, executions=1),
                    claim_next=True, ticket=desk.ticket(job_id),
                )  # fmt: skip
                lease = answer.next
        elif ending == "cancelled":
            desk.ledger.cancel(job_id)
            desk.commit(lease, Settlement(settled=0, hand_back=True))
        else:
            desk.client.pexpire(keys.job_key(job_id, "meta"), 1)
    desk.skew(keys.IDLE_MS + 1000)
    while desk.client.keys("tg:{*}:meta"):
        pass
    assert sum(iter(lambda: desk.ledger.expire(limit=7), 0)) == 100
    assert set(desk.client.keys()) == before


def test_a_job_that_lives_is_looked_at_again_later(desk):
    job_id = desk.job(ttl_s=1000)
    desk.skew(keys.IDLE_MS + 1000)
    assert desk.ledger.expire() == 0
    assert desk.client.zscore(keys.EXPIRING, job_id) > 0
    assert desk.ledger.active_jobs() == [job_id]
    assert desk.ledger.expire() == 0


def test_a_job_opened_again_while_it_is_being_forgotten_stays_in_the_index(desk):
    job_id = desk.job()
    seen = desk.client.zscore(keys.EXPIRING, job_id)
    desk.skew(1)
    spec = desk.ledger.progress(job_id).spec
    desk.ledger.open(spec)
    assert desk.ledger._caller.script("forget", (keys.EXPIRING, keys.JOBS, keys.ACTIVE), job_id, repr(seen)) == 0
    assert [progress.job_id for progress in desk.ledger.jobs()] == [job_id]


def test_memos_of_claimers_that_are_long_gone_are_forgotten(desk):
    job_id = desk.job(sizes=(1,))
    holder = desk.claim(job_id)
    for number in range(1100):
        desk.client.hset(keys.job_key(job_id, "seen"), f"gone/{number}", "n|1|||")
    for _ in range(40):
        desk.sweep(job_id)
    assert desk.client.hlen(keys.job_key(job_id, "seen")) <= 1000
    assert desk.client.hexists(keys.job_key(job_id, "seen"), holder.claimer)
