"""Batches within the limits, and errors that name the item by its index in the job."""

from __future__ import annotations

import pytest

from tidegate.errors import PayloadError, PayloadTooLarge
from tidegate.model.wire import Shape, decode_items
from tidegate.producer.encoding import encode_batches


def _encoded(
    items: list[object], *, may_split: bool = True, max_bytes: int = 1000, first_index: int = 0
) -> list[list[object]]:
    batches = list(encode_batches(items, Shape.ONE, first_index=first_index, max_bytes=max_bytes, may_split=may_split))
    assert all(len(batch.data) <= max_bytes for batch in batches)
    decoded = [decode_items(batch.data)[1] for batch in batches]
    assert [len(batch) for batch in decoded] == [batch.items for batch in batches]
    return decoded


def test_a_batch_is_one_payload() -> None:
    assert _encoded([1, "two", None]) == [[1, "two", None]]


def test_a_batch_that_is_too_large_is_split_in_order() -> None:
    items: list[object] = ["x" * 400, "y" * 400, "z" * 400, "small"]

    assert _encoded(items) == [["x" * 400, "y" * 400], ["z" * 400, "small"]]


def test_a_single_item_that_is_too_large_is_named() -> None:
    with pytest.raises(PayloadTooLarge, match=r"item 102 takes 2,00\d bytes, over the limit of 1,000") as caught:
        _encoded(["a", "b", "c" * 2000], first_index=100)

    assert caught.value.facts["index"] == 102


def test_a_batch_of_a_size_that_the_user_fixed_is_refused_not_split() -> None:
    """Who fixes the size relies on it; a split that must be repeatable may not depend on the limit either."""
    with pytest.raises(PayloadTooLarge, match="use a smaller batch_size"):
        _encoded(["x" * 600, "y" * 600], may_split=False)


def test_an_item_that_cannot_be_encoded_is_named_and_says_why() -> None:
    with pytest.raises(PayloadError, match="item 12 cannot be encoded: Encoding objects of type object") as caught:
        _encoded([1, 2, object(), object()], first_index=10)

    assert caught.value.facts["index"] == 12
    assert "dataclass" in caught.value.remedy


@pytest.mark.parametrize("item", [2**64, {object(): 1}, lambda: None, iter([1])])
def test_every_kind_of_item_that_cannot_travel_is_a_payload_error(item: object) -> None:
    with pytest.raises(PayloadError, match="item 1 "):
        _encoded([1, item])


def test_an_item_that_refers_to_itself_is_a_payload_error() -> None:
    endless: list[object] = []
    endless.append(endless)

    with pytest.raises(PayloadError, match="item 0 "):
        _encoded([endless])
