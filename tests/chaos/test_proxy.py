"""The fault proxy makes the faults that it says it makes; a chaos test without a real fault proves nothing."""

from __future__ import annotations

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tidegate.embedded import EmbeddedServer
from tidegate.testing.chaos.proxy import Call, Fault, FaultProxy, at_call, lose_replies


def _client(url: str) -> redis.Redis:
    """A client that does not try again, so that each fault is seen."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=5)


def test_a_lost_reply_is_of_a_call_that_was_executed(valkey: EmbeddedServer) -> None:
    """The most valuable fault: the server did it, the client cannot know."""
    with FaultProxy(valkey.url, rule=at_call(2, Fault.REPLY_LOST)) as proxy, _client(proxy.url) as client:
        key = "proxy:reply-lost"
        client.delete(key)
        client.eval("return redis.call('INCR', KEYS[1])", 1, key)
        with pytest.raises(redis.ConnectionError):
            client.eval("return redis.call('INCR', KEYS[1])", 1, key)

        assert client.get(key) == b"2"
        assert proxy.faults[Fault.REPLY_LOST] == 1


def test_a_lost_request_was_not_executed(valkey: EmbeddedServer) -> None:
    with FaultProxy(valkey.url, rule=at_call(1, Fault.REQUEST_LOST)) as proxy, _client(proxy.url) as client:
        key = "proxy:request-lost"
        client.delete(key)
        with pytest.raises(redis.ConnectionError):
            client.eval("return redis.call('INCR', KEYS[1])", 1, key)

        assert client.get(key) is None


def test_hooks_run_before_the_server_sees_a_call_and_after_it_answered(valkey: EmbeddedServer) -> None:
    """Killing somebody 'after' must mean: executed, and the answer not yet delivered."""
    with _client(valkey.url) as direct:
        key = "proxy:hooks"
        direct.delete(key)
        seen: list[bytes | None] = []

        def look(_call: Call) -> None:
            seen.append(direct.get(key))

        with FaultProxy(valkey.url, before=look, after=look) as proxy, _client(proxy.url) as client:
            client.eval("return redis.call('INCR', KEYS[1])", 1, key)

        assert seen == [None, b"1"]


def test_large_and_pipelined_traffic_passes_unchanged(valkey: EmbeddedServer) -> None:
    payload = bytes(range(256)) * 8192
    with FaultProxy(valkey.url) as proxy, _client(proxy.url) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(20):
            pipe.set(f"proxy:{number}", payload)
            pipe.get(f"proxy:{number}")
        answers = pipe.execute()

        assert answers[1::2] == [payload] * 20


def test_losses_are_the_same_for_the_same_seed() -> None:
    """A chaos run that fails is repeated from its seed."""
    calls = [Call("EVALSHA", b"", number) for number in range(1, 200)]
    first, second = lose_replies(0.05, 7), lose_replies(0.05, 7)

    fates = [first(call) for call in calls]

    assert fates == [second(call) for call in calls]
    assert Fault.REPLY_LOST in fates
    assert Fault.NONE in fates
