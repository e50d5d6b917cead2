"""Contract of the rate scripts on a real server: slots never repeat, keep their distance, and are never too old."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import redis

from tidegate.limits.store import HORIZON_US, LimitStore, Slots, Undeclared
from tidegate.model.limit import Limit


@pytest.fixture
def store(ledger_url: str) -> Iterator[LimitStore]:
    client = redis.Redis.from_url(ledger_url)
    store = LimitStore(client, timeout_s=5)
    yield store
    store.close()
    client.close()


def lease(store: LimitStore, name: str, want: int, *, nonce: str, ahead: int = 10**6, holder: str = "h") -> Slots:
    answer = store.lease_slots(name, holder, nonce=nonce, want=want, ahead=ahead)
    assert isinstance(answer, Slots)
    return answer


def times(slots: Slots) -> list[float]:
    return [slots.start_us + i * slots.interval_ns / 1000 for i in range(slots.granted)]


def test_a_limit_that_nobody_declared_grants_nothing(store: LimitStore) -> None:
    assert store.lease_slots("api", "h", nonce="1", want=1, ahead=1) == Undeclared()


def test_a_name_in_use_for_the_other_kind_is_told(store: LimitStore) -> None:
    store.declare(Limit("api", concurrency=2), version=0)
    assert store.lease_slots("api", "h", nonce="1", want=1, ahead=1) == Undeclared(other_kind=True)


def test_slots_of_many_leases_keep_the_interval_and_never_repeat(store: LimitStore) -> None:
    store.declare(Limit("api", rate=1000, burst=50), version=0)
    given: list[float] = []
    for number in range(40):
        slots = lease(store, "api", 7, nonce=str(number), holder=f"h{number % 3}")
        assert slots.tolerance_us == 49_000
        given += times(slots)
    assert len(given) > 100
    assert all(later - earlier >= 1000 - 0.001 for earlier, later in itertools.pairwise(given))


def test_no_slot_is_older_than_half_its_tolerance_when_it_is_given(store: LimitStore) -> None:
    store.declare(Limit("api", rate=1000, burst=11), version=0)
    slots = lease(store, "api", 3, nonce="1")
    assert slots.now_us - slots.start_us == 5_000


def test_the_same_request_gets_the_same_slots_and_takes_no_more(store: LimitStore) -> None:
    store.declare(Limit("api", rate=100, burst=5), version=0)
    first = lease(store, "api", 5, nonce="same")
    again = lease(store, "api", 5, nonce="same")
    assert times(first) == times(again)
    after = lease(store, "api", 1, nonce="other")
    assert times(after)[0] >= times(first)[-1] + 10_000 - 1


def test_nothing_is_granted_beyond_the_horizon_and_the_wait_is_told(store: LimitStore) -> None:
    store.declare(Limit("api", rate="1/m", burst=1), version=0)
    assert lease(store, "api", 5, nonce="1", ahead=1).granted == 1
    refused = lease(store, "api", 5, nonce="2", ahead=1)
    assert refused.granted == 0
    assert 0 < refused.wait_us <= refused.interval_ns / 1000 - HORIZON_US


def test_saved_up_slots_are_not_counted_as_future_ones(store: LimitStore) -> None:
    store.declare(Limit("api", rate=10, burst=31), version=0)
    slots = lease(store, "api", 100, nonce="1", ahead=2)
    assert 29 <= slots.granted <= 33
    assert slots.granted - sum(time <= slots.now_us for time in times(slots)) == 2


def test_looking_takes_nothing(store: LimitStore) -> None:
    store.declare(Limit("api", rate="1/m", burst=3), version=0)  # the next slot is good for a minute
    before = lease(store, "api", 1, nonce="1")
    assert lease(store, "api", 0, nonce="2").granted == 0
    assert times(lease(store, "api", 1, nonce="3"))[0] == pytest.approx(times(before)[0] + 60_000_000, abs=1)


def test_who_declared_last_decides_and_what_was_granted_stays_granted(store: LimitStore) -> None:
    old = store.declare(Limit("api", rate=1, burst=1), version=0)
    last = times(lease(store, "api", 1, nonce="1"))[-1]
    new = store.declare(Limit("api", rate=100, burst=3), version=0)
    assert new > old
    store.declare(Limit("api", rate=1, burst=1), version=old)  # an older worker repeats itself
    slots = lease(store, "api", 1, nonce="2")
    assert slots.version == new
    assert slots.interval_ns == 10_000_000
    assert slots.start_us >= last + 1_025_000 - 1 or slots.granted == 0


def test_a_pause_stops_grants_and_the_rate_begins_again_without_a_burst(store: LimitStore) -> None:
    store.declare(Limit("api", rate=1000, burst=100), version=0)
    until, now = store.pause("api", 1.5, nonce="p")
    assert until - now == 1_500_000
    refused = lease(store, "api", 10, nonce="1")
    assert refused.granted == 0
    assert refused.paused_us == until
    assert 0 < refused.wait_us <= 1_500_000
    slots = refused
    while not slots.granted:  # the server's clock decides when the pause is over; the requests follow it
        slots = lease(store, "api", 10, nonce=f"2-{slots.now_us}", ahead=1)
    assert slots.start_us >= until


def test_a_shorter_pause_does_not_end_a_longer_one_and_zero_does(store: LimitStore) -> None:
    store.declare(Limit("api", rate=100, burst=5), version=0)
    long, _ = store.pause("api", 30, nonce="a")
    assert store.pause("api", 1, nonce="b")[0] == long
    assert store.pause("api", 1, nonce="b")[0] == long
    store.pause("api", 0, nonce="c")
    assert lease(store, "api", 1, nonce="1").granted == 1


def test_a_repeated_pause_changes_nothing(store: LimitStore) -> None:
    first, _ = store.pause("api", 5, nonce="same")
    assert store.pause("api", 5, nonce="same")[0] == first


def test_a_pause_before_the_first_declaration_counts(store: LimitStore) -> None:
    until, _ = store.pause("api", 30, nonce="a")
    store.declare(Limit("api", rate=100), version=0)
    assert lease(store, "api", 1, nonce="1").paused_us == until


def test_every_key_of_a_limit_goes_away_by_itself(store: LimitStore, ledger_url: str) -> None:
    store.declare(Limit("api", rate=100), version=0)
    lease(store, "api", 1, nonce="1")
    store.pause("api", 60, nonce="2")
    store.declare(Limit("few", concurrency=1), version=0)
    for holder in ("a", "b"):
        store.hold_permits("few", holder, sequence=1, want=1, in_use=0, lease_ms=60_000)
    client = redis.Redis.from_url(ledger_url)
    keys = client.keys("*")
    assert len(keys) == 6
    assert all(0 < client.pttl(key) <= 3_700_000 for key in keys)
    client.close()


def test_limits_still_work_when_the_server_is_out_of_memory(store: LimitStore, ledger_url: str) -> None:
    client = redis.Redis.from_url(ledger_url)
    client.config_set("maxmemory", 1)
    try:
        store.declare(Limit("api", rate=100), version=0)
        assert lease(store, "api", 1, nonce="1").granted == 1
        store.pause("api", 1, nonce="2")
        store.declare(Limit("few", concurrency=1), version=0)
        held = store.hold_permits("few", "a", sequence=1, want=1, in_use=0, lease_ms=1000)
        assert not isinstance(held, Undeclared)
        assert held.allowed == 1
    finally:
        client.config_set("maxmemory", 0)
        client.close()
