"""Contract of hold_keys and pause_key on a real server: each key by itself is what a concurrency limit is as a whole."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.limits import keys
from tidegate.limits.key_store import PAGE, Ask, KeyPermits, KeyStore, name_of
from tidegate.limits.store import TURN_MS, LimitStore, Undeclared
from tidegate.model.limit import Limit

LEASE_MS = 60_000
A, B = 1, (1 << 64) - 2


@pytest.fixture
def client(ledger_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(ledger_url, decode_responses=True)
    yield client
    client.close()


class Cluster:
    """Holders of one keyed limit, each with its running number."""

    def __init__(self, client: redis.Redis, permits: int) -> None:
        self.client = client
        self.inside = LimitStore(client, timeout_s=5)
        self.store = KeyStore(self.inside, "host")
        self.numbers: dict[str, int] = {}
        self.declare(permits)

    def declare(self, permits: int) -> None:
        self.inside.declare(Limit("host", concurrency=permits, key=str), version=0)

    def call(self, holder: str, *asks: Ask, lease_ms: int = LEASE_MS, number: int = 0, known: int = 0) -> KeyPermits:
        number = number or self.numbers.get(holder, 0) + 1
        self.numbers[holder] = max(number, self.numbers.get(holder, 0))
        answer = self.store.hold_keys(
            holder, asks, sequence=number, lease_ms=lease_ms, pause_number=known, place=0
        )  # fmt: skip
        assert isinstance(answer, KeyPermits)
        return answer

    def hold(self, holder: str, key: int, want: int, in_use: int = 0, *, lease_ms: int = LEASE_MS) -> tuple[int, int]:
        return self.call(holder, Ask(key, want, in_use=in_use), lease_ms=lease_ms).answers[0]

    def recount(self, key: int) -> dict[str, int]:
        fields = self.client.hgetall(keys.one_key("host", name_of(key)))
        return {holder: int(value.split()[0]) for holder, value in fields.items()}

    def wait_ms(self, milliseconds: int) -> None:
        """Until that much of the server's time has passed."""
        until_ms = self.now_ms() + milliseconds
        while self.now_ms() < until_ms:
            time.sleep(0.005)

    def now_ms(self) -> float:
        """The server's time."""
        seconds, micros = self.client.time()
        return float(seconds * 1000 + micros / 1000)


@pytest.fixture
def cluster(client: redis.Redis) -> Iterator[Cluster]:
    cluster = Cluster(client, 4)
    yield cluster
    cluster.inside.close()


def test_a_limit_that_nobody_declared_or_that_has_no_key_grants_nothing(client: redis.Redis) -> None:
    inside = LimitStore(client, timeout_s=5)
    store = KeyStore(inside, "host")
    ask = [Ask(A, 1)]
    assert store.hold_keys("me", ask, sequence=1, lease_ms=1, pause_number=0, place=0) == Undeclared()
    assert store.lease_key_slots(ask, pause_number=0) == Undeclared()
    inside.declare(Limit("host", concurrency=2), version=0)
    assert store.hold_keys("me", ask, sequence=1, lease_ms=1, pause_number=0, place=0) == Undeclared(other_kind=True)
    assert store.lease_key_slots(ask, pause_number=0) == Undeclared(other_kind=True)
    inside.close()


def test_each_key_has_the_whole_limit_and_one_call_serves_many(cluster: Cluster) -> None:
    answer = cluster.call("me", *[Ask(key, 9) for key in range(PAGE)])
    assert answer.answers == ((4, 4),) * PAGE
    assert cluster.hold("you", A, 3) == (0, 0)
    assert cluster.hold("you", B, 3) == (3, 3)


def test_a_key_that_is_given_back_is_gone(cluster: Cluster) -> None:
    cluster.call("me", Ask(A, 2), Ask(B, 4))
    cluster.call("me", Ask(A, 0), Ask(B, 0, in_use=1))
    assert cluster.recount(A) == {}
    assert not cluster.client.exists(keys.one_key("host", name_of(A)))
    assert cluster.recount(B) == {"me": 1}
    assert 0 < cluster.client.pttl(keys.one_key("host", name_of(B))) <= 120_000
    cluster.call("me", Ask(B, 0))
    assert cluster.client.keys("*:key:*") == []


def test_what_is_in_use_is_counted_until_it_is_not(cluster: Cluster) -> None:
    cluster.hold("me", A, 4)
    assert cluster.hold("me", A, 1, in_use=3) == (1, 3)
    assert cluster.hold("you", A, 4) == (1, 1)
    cluster.hold("me", A, 1, in_use=1)
    assert cluster.hold("you", A, 4) == (3, 3)


def test_a_request_that_comes_late_changes_nothing(cluster: Cluster) -> None:
    cluster.hold("me", A, 2)
    cluster.hold("me", A, 0)
    late = cluster.call("me", Ask(A, 4), number=1)
    assert not late.fresh
    assert late.answers == ()
    assert cluster.recount(A) == {}


def test_the_permits_of_a_dead_holder_come_back_on_every_key(cluster: Cluster) -> None:
    cluster.call("dead", Ask(A, 4), Ask(B, 4))
    assert cluster.hold("me", A, 4) == (0, 0)
    cluster.call("dead", lease_ms=50)  # the last that is heard of it
    cluster.wait_ms(60)
    assert cluster.hold("me", A, 4) == (4, 4)
    assert cluster.hold("me", B, 4) == (4, 4)
    assert cluster.recount(A) == {"me": 4}


def test_one_call_for_any_key_renews_all_of_a_holder(cluster: Cluster) -> None:
    cluster.hold("me", A, 4, lease_ms=1000)
    cluster.call("me", lease_ms=LEASE_MS)
    cluster.wait_ms(1010)
    assert cluster.hold("you", A, 1) == (0, 0)


def test_holders_of_a_key_share_it_and_hear_that_somebody_waits(cluster: Cluster) -> None:
    assert cluster.hold("me", A, 9) == (4, 4)
    assert cluster.call("you", Ask(A, 9)).answers == ((0, 0),)
    heard = cluster.call("me")
    assert heard.wanted == (A,)
    assert cluster.hold("me", A, 9) == (2, 2)
    assert cluster.hold("you", A, 9) == (2, 2)


def test_fewer_permits_than_holders_go_round_by_who_waited_longest(cluster: Cluster) -> None:
    cluster.declare(1)
    for key in range(100):  # another key, when this test was held up for longer than a turn
        began_ms = cluster.now_ms()
        assert cluster.hold("a", key, 1) == (1, 1)
        assert cluster.hold("b", key, 1) == (0, 0)
        cluster.wait_ms(3)
        assert cluster.hold("c", key, 1) == (0, 0)
        still = cluster.hold("a", key, 1, in_use=1)
        if cluster.now_ms() - began_ms < TURN_MS:
            assert still == (1, 1)  # its turn is not over
            break
    cluster.wait_ms(TURN_MS + 50)
    assert cluster.hold("a", key, 1, in_use=1) == (0, 1)
    assert cluster.hold("a", key, 1) == (0, 0)
    assert cluster.hold("c", key, 1) == (0, 0)
    assert cluster.hold("b", key, 1) == (1, 1)


def test_a_paused_key_is_heard_of_once_by_everybody_and_no_other_key_is(cluster: Cluster) -> None:
    until_us, now_us = cluster.store.pause_key(A, 30)
    assert until_us - now_us == 30_000_000
    heard = cluster.call("me", Ask(A, 1))
    assert heard.pauses == ((A, until_us),)
    assert cluster.call("me", known=heard.pause_number).pauses == ()
    assert cluster.store.pause_key(A, 5)[0] == until_us  # a shorter one ends nothing
    over_us, now_us = cluster.store.pause_key(A, 0)
    assert over_us <= now_us
    again = cluster.call("me", known=heard.pause_number)
    assert again.pauses == ((A, over_us),)


def test_everything_expires(cluster: Cluster) -> None:
    cluster.hold("me", A, 4)
    cluster.hold("you", A, 4)
    cluster.store.pause_key(B, 1)
    assert all(0 < cluster.client.pttl(key) <= 3_700_000 for key in cluster.client.keys("tg:*"))


HOLDERS = st.sampled_from(["a", "b", "c"])
KEYS = st.sampled_from([A, B, 7])
CALL = st.tuples(HOLDERS, st.lists(st.tuples(KEYS, st.integers(0, 6), st.integers(0, 6)), max_size=4))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALL, max_size=30), permits=st.integers(1, 5))
def test_in_any_order_of_calls_no_key_is_held_more_often_than_the_limit(
    client: redis.Redis, calls: list[tuple[str, list[tuple[int, int, int]]]], permits: int
) -> None:
    """The model: what each holder was last told it may use of a key. It uses up to that, says so, and never more."""
    client.flushall()
    cluster = Cluster(client, permits)
    granted: dict[tuple[str, int], tuple[int, int]] = {}
    for holder, wishes in calls:
        asks = {}
        for key, want, use in wishes:
            _, recorded = granted.get((holder, key), (0, 0))
            asks[key] = Ask(key, want, in_use=min(use, recorded))
        answer = cluster.call(holder, *asks.values())
        for ask, (allowed, recorded) in zip(asks.values(), answer.answers, strict=True):
            assert allowed <= ask.want
            assert recorded == max(allowed, ask.in_use)
            granted[holder, ask.key] = (allowed, recorded)
        for key in (A, B, 7):
            counted = {name: recorded for (name, one), (_, recorded) in granted.items() if one == key and recorded}
            assert {name: held for name, held in cluster.recount(key).items() if held} == counted
            assert sum(counted.values()) <= permits
    cluster.inside.close()
