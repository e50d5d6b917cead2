"""Any items, any split, any interruptions: the ledger ends up with every item once, in order."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.embedded import EmbeddedServer
from tidegate.errors import PayloadTooLarge
from tidegate.ledger.keys import job_key
from tidegate.ledger.redis import RedisLedger
from tidegate.model.job import JobSpec, new_job_id
from tidegate.model.outcome import JobState
from tidegate.model.wire import Shape, decode_items
from tidegate.producer.drive import drive
from tidegate.producer.encoding import encode_batches
from tidegate.producer.sizing import BatchSizer
from tidegate.producer.submission import Submission, SubmissionOptions, with_fixed_split

_plain = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
_values = st.recursive(
    _plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@pytest.fixture(scope="module")
def ledger(valkey: EmbeddedServer) -> Iterator[RedisLedger]:
    with RedisLedger.from_url(valkey.url) as ledger:
        yield ledger


def _held(ledger: RedisLedger, job_id: str) -> list[Any]:
    """The items that the ledger holds for the job, in the order of its batches."""
    payloads: dict[bytes, bytes] = ledger.client.hgetall(job_key(job_id, "payloads"))
    batches = (decode_items(payloads[number])[1] for number in sorted(payloads, key=int))
    return [item for batch in batches for item in batch]


def _submission(ledger: RedisLedger, spec: JobSpec, fixed: int | None, *, exists: bool = False) -> Submission:
    options = SubmissionOptions(max_batch_bytes=1 << 20, exists=exists)
    return Submission(ledger, spec, BatchSizer(fixed=fixed), lambda job_id, numbers: None, options)


@given(items=st.lists(_values, max_size=60), fixed=st.none() | st.integers(1, 70))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_item_arrives_once_and_in_order(ledger: RedisLedger, items: list[Any], fixed: int | None) -> None:
    spec = JobSpec(job_id=new_job_id(), task="app.f")

    drive(_submission(ledger, spec, fixed), iter(items))

    assert _held(ledger, spec.job_id) == items
    stands = ledger.progress(spec.job_id)
    assert stands.total == len(items)
    assert stands.state is (JobState.SEALED if items else JobState.DONE)


@given(
    count=st.integers(0, 300),
    size=st.integers(1, 12),
    chunk_batches=st.integers(1, 4),
    breaks=st.lists(st.integers(0, 300), max_size=4),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_producer_may_break_anywhere_and_as_often_as_it_likes(
    ledger: RedisLedger, count: int, size: int, chunk_batches: int, breaks: list[int]
) -> None:
    split = JobSpec(
        job_id=new_job_id(), task="app.f", batch_size=size, chunk_batches=chunk_batches, chunk_bytes=1 << 20
    )

    def run(until: int | None) -> None:
        spec, exists = with_fixed_split(ledger, split, size, size)
        spec = spec if exists else split

        def source() -> Iterator[int]:
            for number in range(count):
                if number == until:
                    raise ConnectionResetError
                yield number

        drive(_submission(ledger, spec, size, exists=exists), source())

    for until in breaks:
        if until < count:
            with pytest.raises(ConnectionResetError):
                run(until)
    run(None)

    assert _held(ledger, split.job_id) == list(range(count))
    assert ledger.progress(split.job_id).total == count


@given(items=st.lists(st.text(max_size=200), min_size=1, max_size=40), max_bytes=st.integers(20, 2000))
def test_batches_are_within_the_limit_or_the_item_is_named(items: list[str], max_bytes: int) -> None:
    try:
        batches = list(encode_batches(list(items), Shape.ONE, first_index=0, max_bytes=max_bytes, may_split=True))
    except PayloadTooLarge as error:
        index = error.facts["index"]
        with pytest.raises(PayloadTooLarge):
            list(encode_batches([items[index]], Shape.ONE, first_index=0, max_bytes=max_bytes, may_split=True))
        return
    assert all(len(batch.data) <= max_bytes for batch in batches)
    assert [item for batch in batches for item in decode_items(batch.data)[1]] == items


@given(
    st.lists(
        st.tuples(st.integers(1, 10_000), st.integers(0, 10**7), st.integers(0, 10**10)) | st.integers(0, 10**12),
        max_size=30,
    ),
    st.none() | st.integers(0, 10**9),
)
def test_a_batch_always_has_a_sane_size(history: list[Any], total: int | None) -> None:
    """Whatever is measured, there is a next batch, and it is neither empty nor endless."""
    sizer = BatchSizer(total=total)
    for learned in history:
        if isinstance(learned, tuple):
            sizer.learn_batch(*learned)
        else:
            sizer.learn_stats({"running_count": 50, "running_sum_ns": learned})
        assert 1 <= sizer.next_size() <= 100_000


@given(_values | st.datetimes(timezones=st.just(datetime.UTC)) | st.uuids())
def test_what_msgspec_carries_comes_back_as_plain_data(item: Any) -> None:
    (batch,) = encode_batches([item], Shape.ONE, first_index=0, max_bytes=1 << 20, may_split=True)

    expected = str(item) if isinstance(item, uuid.UUID) else item
    assert decode_items(batch.data) == (Shape.ONE, [expected])
