"""A concurrency limit used by several real processes: at no instant more in use than the limit, whatever is killed."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from tidegate.limits import keys


def peak(users: Any) -> int:
    """The most that was in use at once, over all processes."""
    events = sorted((at, step) for user in users.all for at, step in user.events())
    in_use = most = 0
    for _, step in events:
        in_use += step
        most = max(most, in_use)
    return most


@pytest.mark.parametrize("engine", ["recorder", "host"])
@pytest.mark.parametrize("permits", [1, 2, 6])
def test_no_instant_sees_more_in_use_than_the_limit(users: Any, permits: int, engine: str) -> None:
    limit = {"name": "few", "concurrency": permits}
    crowd = [users.start(limit, work_s=0.01, engine=engine) for _ in range(3)]
    users.wait_until(lambda: all(len(user.began()) >= 20 for user in crowd), "twenty uses by each")
    users.wait_until(lambda: peak(users) >= permits, "all permits in use at once")
    assert all(user.stop() == 0 for user in crowd)
    assert peak(users) == permits


def test_what_processes_give_back_at_their_end_is_free_at_once(users: Any, ledger_url: str) -> None:
    user = users.start({"name": "few", "concurrency": 4}, work_s=0.01, lease_s=60)
    users.wait_until(lambda: len(user.began()) >= 10, "uses")
    user.stop()
    client = redis.Redis.from_url(ledger_url)
    left = int(client.hget(keys.limit_key("few"), "total") or 0)
    client.close()
    assert left <= 4  # items that still ran at the end end with the lease; nothing else is left
    other = users.start({"name": "few", "concurrency": 8}, work_s=0.01)
    users.wait_until(lambda: len(other.began()) >= 10, "uses by the next")


def test_the_permits_of_a_killed_process_come_back_and_the_bound_holds(users: Any) -> None:
    limit = {"name": "few", "concurrency": 3}
    for _ in range(3):
        victim = users.start(limit, work_s=0.05, lease_s=2)
        other = users.start(limit, work_s=0.05, lease_s=2)
        users.wait_until(lambda v=victim, o=other: v.began() and o.began(), "both use it")
        victim.kill()
    seen = len(users.began())
    users.wait_until(lambda: len(users.began()) > seen + 60, "uses after the last kill")
    assert peak(users) <= 3


def test_a_process_that_cannot_renew_stops_before_its_lease_ends(own_server: Any, users: Any) -> None:
    users.url = own_server.url
    user = users.start({"name": "few", "concurrency": 2}, work_s=0.01, lease_s=2)
    users.wait_until(lambda: len(user.began()) > 20, "uses before")
    stopped_ns = time.monotonic_ns()
    own_server.kill()
    quiet_ns = 1_500_000_000
    users.wait_until(lambda: time.monotonic_ns() > user.began()[-1] + quiet_ns, "no use for 1.5 s")
    assert user.began()[-1] < stopped_ns + 2_000_000_000
    last = user.began()[-1]
    own_server.start()
    users.wait_until(lambda: user.began()[-1] > last, "uses after the server came back")
    assert peak(users) <= 2
