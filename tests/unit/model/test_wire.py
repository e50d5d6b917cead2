"""The wire form: everything that can be sent comes back, everything else is refused with its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import PayloadError, PayloadTooLarge
from tidegate.model.outcome import FailureRecord, Outcome
from tidegate.model.wire import (
    Shape,
    decode_failures,
    decode_items,
    decode_results,
    encode_failures,
    encode_items,
    encode_results,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(values, max_size=20), st.sampled_from(Shape))
def test_items_come_back_as_they_were_sent(items: list[Any], shape: Shape) -> None:
    assert decode_items(encode_items(items, shape, max_bytes=1 << 20)) == (shape, items)


@given(st.binary(max_size=200))
def test_any_bytes_at_all_either_decode_or_raise_a_payload_error(data: bytes) -> None:
    """Whoever can write to Redis can make a worker refuse a batch, and nothing worse."""
    for decode in (decode_items, decode_results, decode_failures):
        try:
            decode(data)
        except PayloadError:
            continue


def test_depth_that_would_exhaust_the_stack_is_refused() -> None:
    with pytest.raises(PayloadError):
        decode_items(b"\x91" * 200_000)


def test_the_first_item_that_cannot_be_encoded_is_named() -> None:
    with pytest.raises(PayloadError, match="item 2 of the batch") as caught:
        encode_items([1, "two", object(), 4], Shape.ONE, max_bytes=1 << 20)

    assert caught.value.facts["position"] == 2
    assert "send" in caught.value.remedy


def test_a_batch_over_the_limit_is_refused_with_both_sizes() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        encode_items(["x" * 1000] * 10, Shape.ONE, max_bytes=5000)

    assert caught.value.facts["limit"] == 5000
    assert caught.value.facts["bytes"] > 10_000


def test_a_payload_of_a_newer_version_says_what_to_upgrade() -> None:
    newer = b"\x93\x09\x00\x90"

    with pytest.raises(PayloadError, match="upgrade the workers"):
        decode_items(newer)


def test_results_are_told_apart_by_index_in_both_forms() -> None:
    assert decode_results(encode_results(5, ["a", "b"])) == [(5, "a"), (6, "b")]
    assert decode_results(encode_results([3, 9], ["a", "b"])) == [(3, "a"), (9, "b")]


def test_the_result_that_cannot_be_encoded_is_named() -> None:
    with pytest.raises(PayloadError) as caught:
        encode_results(0, [1, 2, object()])

    assert caught.value.facts["position"] == 2


def test_dead_letters_keep_everything_that_replay_and_report_need() -> None:
    record = FailureRecord(
        index=7,
        outcome=Outcome.TIMED_OUT,
        error_type="TimeoutError",
        message="after 10 s",
        fingerprint="00ff00ff00ff00ff",
        attempts=3,
        arguments=b"\xa1x",
        run_ns=10,
        finished_wall_ms=20,
        history=("first", "second"),
    )

    assert decode_failures(encode_failures([record])) == [record]
