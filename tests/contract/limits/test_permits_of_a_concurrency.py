"""Contract of hold_permits on a real server: never above the limit, never lost, shared out fairly."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.limits import keys
from tidegate.limits.store import LimitStore, Permits, Undeclared
from tidegate.model.limit import Limit

LEASE_MS = 60_000


@pytest.fixture
def client(ledger_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(ledger_url, decode_responses=True)
    yield client
    client.close()


class Cluster:
    """Holders of one limit, each with its running number."""

    def __init__(self, client: redis.Redis, permits: int) -> None:
        self.client = client
        self.store = LimitStore(client, timeout_s=5)
        self.numbers: dict[str, int] = {}
        self.limit(permits)

    def limit(self, permits: int) -> None:
        self.store.declare(Limit("few", concurrency=permits), version=0)

    def hold(self, holder: str, want: int, in_use: int = 0, *, lease_ms: int = LEASE_MS, number: int = 0) -> Permits:
        number = number or self.numbers.get(holder, 0) + 1
        self.numbers[holder] = max(number, self.numbers.get(holder, 0))
        answer = self.store.hold_permits("few", holder, sequence=number, want=want, in_use=in_use, lease_ms=lease_ms)
        assert isinstance(answer, Permits)
        return answer

    def recount(self) -> int:
        permits = self.client.hgetall(keys.permits_key("few"))
        total = sum(int(value) for name, value in permits.items() if name[:2] not in ("s:", "t:"))
        assert total == int(self.client.hget(keys.limit_key("few"), "total") or 0)
        return total


@pytest.fixture
def cluster(client: redis.Redis) -> Iterator[Cluster]:
    cluster = Cluster(client, 10)
    yield cluster
    cluster.store.close()


def test_a_limit_that_nobody_declared_grants_nothing(client: redis.Redis) -> None:
    store = LimitStore(client)
    assert store.hold_permits("few", "a", sequence=1, want=1, in_use=0, lease_ms=1000) == Undeclared()
    store.close()


def test_permits_end_at_the_limit_and_come_back(cluster: Cluster) -> None:
    assert cluster.hold("a", 7).allowed == 7
    assert cluster.hold("b", 7).allowed == 3
    assert cluster.recount() == 10
    cluster.hold("a", 0)
    assert cluster.hold("b", 7).allowed == 7
    assert cluster.recount() == 7


def test_an_answer_that_was_lost_costs_nothing_when_the_request_is_repeated(cluster: Cluster) -> None:
    cluster.hold("a", 7)
    again = cluster.hold("a", 7, number=1)
    assert not again.fresh
    assert cluster.recount() == 7


def test_an_old_request_that_arrives_late_is_refused(cluster: Cluster) -> None:
    cluster.hold("a", 2, number=1)
    cluster.hold("a", 8, in_use=2, number=3)
    late = cluster.hold("a", 0, number=2)
    assert not late.fresh
    assert late.recorded == 8
    assert cluster.recount() == 8


def test_what_is_in_use_cannot_be_taken_back(cluster: Cluster) -> None:
    cluster.hold("a", 10)
    cluster.hold("b", 10)
    cut = cluster.hold("a", 10, in_use=10)
    assert (cut.allowed, cut.recorded) == (5, 10)
    assert cluster.hold("b", 10).allowed == 0
    cut = cluster.hold("a", 10, in_use=6)
    assert (cut.allowed, cut.recorded) == (5, 6)
    assert cluster.hold("b", 10).allowed == 4


def test_holders_end_up_with_equal_shares_and_the_rest_is_used_too(cluster: Cluster) -> None:
    allowed = dict.fromkeys("abcd", 0)
    allowed["a"] = cluster.hold("a", 100).allowed
    assert allowed["a"] == 10
    for _ in range(4):
        for name in allowed:
            allowed[name] = cluster.hold(name, 100, in_use=0).allowed
            assert cluster.recount() <= 10
    assert min(allowed.values()) >= 2
    assert cluster.recount() == 10


def test_one_permit_goes_round_among_holders_that_all_want_it(client: redis.Redis) -> None:
    cluster = Cluster(client, 1)
    had: set[str] = set()
    deadline = time.monotonic() + 60
    while len(had) < 3 and time.monotonic() < deadline:
        for name in "abc":
            if cluster.hold(name, 5).allowed:
                had.add(name)
            assert cluster.recount() <= 1
    assert had == {"a", "b", "c"}
    cluster.store.close()


def test_the_permits_of_a_dead_holder_come_back_after_its_lease(cluster: Cluster) -> None:
    assert cluster.hold("dead", 10, lease_ms=50).allowed == 10
    deadline = time.monotonic() + 60
    while cluster.hold("b", 10).allowed < 10:
        assert time.monotonic() < deadline
    assert cluster.recount() == 10


def test_a_renewed_lease_is_not_taken(cluster: Cluster) -> None:
    cluster.hold("a", 5, lease_ms=50)
    cluster.hold("a", 5, in_use=5, lease_ms=LEASE_MS)
    time.sleep(0.06)  # longer than the first lease: nothing happens at its end, which is what is to be shown
    assert cluster.hold("b", 10).allowed == 5


def test_a_lowered_limit_lets_nobody_start_until_use_has_fallen(cluster: Cluster) -> None:
    cluster.hold("a", 10)
    cluster.limit(4)
    lowered = cluster.hold("a", 10, in_use=9)
    assert (lowered.allowed, lowered.recorded, lowered.limit) == (4, 9, 4)
    assert cluster.hold("b", 10).allowed == 0
    assert cluster.hold("a", 10, in_use=4).recorded == 4


def test_a_holder_that_the_server_forgot_is_counted_again_with_what_it_uses(
    cluster: Cluster, client: redis.Redis
) -> None:
    cluster.hold("a", 8)
    client.flushall()
    cluster.limit(10)
    assert cluster.hold("b", 10).allowed == 10
    back = cluster.hold("a", 8, in_use=6)
    assert (back.allowed, back.recorded) == (0, 6)
    assert cluster.hold("b", 10, in_use=3).allowed == 4


def test_a_pause_is_told_to_holders(cluster: Cluster) -> None:
    until, _ = cluster.store.pause("few", 30, nonce="p")
    assert cluster.hold("a", 1).paused_us == until


REQUEST = st.tuples(st.sampled_from("abcd"), st.integers(0, 12), st.integers(0, 12), st.integers(-2, 3))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(REQUEST, max_size=40), permits=st.integers(1, 9))
def test_no_order_of_requests_and_repeats_puts_more_in_use_than_the_limit(
    client: redis.Redis, requests: list[tuple[str, int, int, int]], permits: int
) -> None:
    """A holder follows its last fresh answer; now and then it loses an answer, or an old request arrives again."""
    client.flushall()
    cluster = Cluster(client, permits)
    capacity = dict.fromkeys("abcd", 0)
    for holder, want, released, luck in requests:
        capacity[holder] = min(capacity[holder], max(want, capacity[holder] - released))
        old = cluster.numbers.get(holder, 0) + luck if luck < 0 else 0
        answer = cluster.hold(holder, want, in_use=capacity[holder], number=max(0, old))
        if luck != 3 and answer.fresh:  # 3: the answer is lost
            assert answer.recorded >= answer.allowed
            capacity[holder] = answer.allowed
        assert sum(capacity.values()) <= cluster.recount() <= permits
    cluster.store.close()
