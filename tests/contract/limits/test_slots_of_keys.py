"""Contract of lease_key_slots on a real server: each key by itself is what a rate limit is as a whole."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest
import redis

from tidegate.limits import keys
from tidegate.limits.key_store import Ask, KeySlots, KeyStore, name_of
from tidegate.limits.store import HORIZON_US, LimitStore
from tidegate.model.limit import Limit

A, B = 1, (1 << 64) - 2


class Keys:
    def __init__(self, client: redis.Redis, rate: float, burst: int) -> None:
        self.client = client
        self.inside = LimitStore(client, timeout_s=5)
        self.store = KeyStore(self.inside, "host")
        self.inside.declare(Limit("host", rate=rate, burst=burst, key=str), version=0)

    def lease(self, *asks: Ask, known: int = 0) -> KeySlots:
        answer = self.store.lease_key_slots(asks, pause_number=known)
        assert isinstance(answer, KeySlots)
        return answer


@pytest.fixture
def client(ledger_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(ledger_url, decode_responses=True)
    yield client
    client.close()


def test_each_key_has_its_own_slots_and_none_is_given_twice(client: redis.Redis) -> None:
    limit = Keys(client, 100, 5)
    slots = defaultdict[int, list[int]](list)
    for _ in range(40):
        asks = (Ask(A, 3, ahead=2), Ask(B, 9, ahead=4))
        answer = limit.lease(*asks)
        for ask, (granted, start_us, _) in zip(asks, answer.answers, strict=True):
            assert granted <= ask.want
            slots[ask.key] += [start_us + round(i * answer.interval_ns / 1000) for i in range(granted)]
    for times in slots.values():
        assert len(times) > 5
        assert all(later - earlier >= 10_000 for earlier, later in itertools.pairwise(times))
    limit.inside.close()


def test_nothing_is_granted_far_ahead_and_the_answer_says_when_to_come_back(client: redis.Redis) -> None:
    limit = Keys(client, 0.1, 1)
    first, second = limit.lease(Ask(A, 9, ahead=9)), limit.lease(Ask(A, 9, ahead=9))
    granted, start_us, wait_us = second.answers[0]
    assert first.answers[0][0] == 1
    assert granted == 0
    assert abs(start_us - second.now_us - wait_us - HORIZON_US) < 10
    limit.inside.close()


def test_a_key_is_gone_when_it_binds_nobody_any_more(client: redis.Redis) -> None:
    limit = Keys(client, 100, 5)
    limit.lease(Ask(A, 1, ahead=1))
    key = keys.one_key("host", name_of(A))
    left_ms = client.pttl(key)
    assert 0 < left_ms <= 1_200
    deadline = time.monotonic() + 60
    while client.exists(key):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    limit.inside.close()


def test_a_paused_key_gets_no_slots_and_begins_again_without_a_burst(client: redis.Redis) -> None:
    limit = Keys(client, 100, 50)
    until_us, _ = limit.store.pause_key(A, 1.5)
    asks = (Ask(A, 50, ahead=1), Ask(B, 50, ahead=1))
    answer = limit.lease(*asks)
    assert answer.pauses == ((A, until_us),)
    (paused, _, wait_us), (other, _, _) = answer.answers
    assert paused == 0
    assert 0 < wait_us <= 1_500_000
    assert other > 30
    while limit.lease(known=answer.pause_number).now_us <= until_us:
        time.sleep(0.01)
    after = limit.lease(Ask(A, 50, ahead=1))
    granted, start_us, _ = after.answers[0]
    assert start_us >= until_us
    assert granted <= (after.now_us - until_us) // 10_000 + 12  # what came since, not the half second before
    limit.inside.close()


def test_a_pause_of_the_whole_limit_holds_for_every_key(client: redis.Redis) -> None:
    limit = Keys(client, 100, 5)
    limit.inside.pause("host", 30, nonce="n")
    answer = limit.lease(Ask(A, 1, ahead=1), Ask(B, 1, ahead=1))
    assert answer.paused_us > answer.now_us
    assert [granted for granted, _, _ in answer.answers] == [0, 0]
    limit.inside.close()
