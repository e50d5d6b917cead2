"""The workers of the cluster, and whose turn it is to sweep."""

from __future__ import annotations


def slots(desk, worker, slots, ttl_ms=10_000):
    return desk.ledger.heartbeat(worker, slots=slots, ttl_ms=ttl_ms, facts={"host": "h", "load": 0.5})


def test_live_slots_are_those_of_all_live_workers(desk):
    assert slots(desk, "a", 4) == 4
    assert slots(desk, "b", 3) == 7
    assert slots(desk, "a", 1) == 4
    desk.skew(5_000)
    assert slots(desk, "b", 3) == 4
    desk.skew(6_000)
    assert slots(desk, "b", 3) == 3
    assert [one["worker"] for one in desk.ledger.workers()] == ["b"]


def test_a_worker_that_leaves_is_forgotten_at_once(desk):
    slots(desk, "a", 4)
    slots(desk, "b", 2)
    desk.ledger.leave("a")
    desk.ledger.leave("a")
    assert [one["worker"] for one in desk.ledger.workers()] == ["b"]
    assert slots(desk, "b", 2) == 2
    desk.ledger.leave("b")
    desk.ledger.leave("never seen")
    assert desk.client.keys("tg:{@}:*") == []


def test_a_worker_says_what_it_is(desk):
    slots(desk, "a", 4)
    assert desk.ledger.workers() == [{"worker": "a", "slots": "4", "host": "h", "load": "0.5"}]


def test_very_many_silent_workers_are_forgotten_a_page_at_a_time(desk):
    for number in range(250):
        slots(desk, f"dead/{number}", 1)
    desk.skew(20_000)
    assert [slots(desk, "alive", 2) for _ in range(3)] == [152, 52, 2]


def test_the_registry_of_a_cluster_that_is_gone_lives_for_a_while_only(desk):
    slots(desk, "a", 1)
    assert all(0 < desk.client.pttl(key) <= 100_000 for key in desk.client.keys("tg:{@}:*"))


def test_one_sweeper_at_a_time(desk):
    assert desk.ledger.try_sweep_turn("a", 60_000)
    assert desk.ledger.try_sweep_turn("a", 60_000)
    assert not desk.ledger.try_sweep_turn("b", 60_000)
    desk.client.pexpire("tg:{@}:turn", 1)
    while desk.client.exists("tg:{@}:turn"):
        pass
    assert desk.ledger.try_sweep_turn("b", 60_000)


def test_the_job_that_was_swept_longest_ago_comes_first(desk):
    jobs = [desk.job() for _ in range(3)]
    for number in (2, 0, 1):
        desk.skew(1_000)
        desk.sweep(jobs[number])
    assert desk.ledger.active_jobs() == [jobs[2], jobs[0], jobs[1]]
    new = desk.job()
    assert desk.ledger.active_jobs(limit=2) == [new, jobs[2]]
