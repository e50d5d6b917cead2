"""What may be given as items, and the ids of submissions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tidegate.errors import ConfigurationError
from tidegate.model.job import new_job_id
from tidegate.producer.identity import job_id_for
from tidegate.producer.origin import capture
from tidegate.producer.sources import is_async, known_length, sync_source, take, take_async
from tidegate.worker.tickets import parse_ticket


async def _numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


def test_a_source_is_read_no_further_than_asked() -> None:
    seen: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            seen.append(number)
            yield number

    source = sync_source(numbers())

    assert take(source, 3) == [0, 1, 2]
    assert seen == [0, 1, 2]
    assert take(source, 1000) == list(range(3, 100))
    assert take(source, 5) == []


def test_an_async_source_is_read_no_further_than_asked() -> None:
    async def read() -> list[list[int]]:
        source = aiter(_numbers(5))
        return [await take_async(source, 2) for _ in range(4)]

    assert asyncio.run(read()) == [[0, 1], [2, 3], [4], []]


@pytest.mark.parametrize("items", ["https://example.org", b"bytes", 5, None, object()])
def test_what_is_not_a_collection_of_items_is_refused(items: object) -> None:
    """A text is iterable, but its letters are hardly what was meant."""
    with pytest.raises(ConfigurationError, match="items is"):
        sync_source(items)  # type: ignore[arg-type]


def test_lengths_are_used_only_when_they_are_known() -> None:
    assert known_length([1, 2]) == 2
    assert known_length(range(10)) == 10
    assert known_length(iter([1])) is None
    assert is_async(_numbers(1))
    assert not is_async([1])


def test_any_text_is_a_submission_id_and_always_the_same_job() -> None:
    ids = {job_id_for(name) for name in ("a", "b", "nightly 2026-11-21", "ünïcode", "x" * 1000)}

    assert len(ids) == 5
    for job_id in ids:
        assert parse_ticket([job_id, 1]) == (job_id, 1)  # the worker takes it for a job id
        assert job_id_for(job_id) == job_id
    job_id = new_job_id()
    assert job_id_for(job_id) == job_id


@pytest.mark.parametrize("name", ["", "x" * 1001, 5, None])
def test_nonsense_ids_are_refused(name: object) -> None:
    with pytest.raises(ConfigurationError, match="id="):
        job_id_for(name)  # type: ignore[arg-type]


def test_the_origin_is_the_calling_line_outside_tidegate() -> None:
    origin = capture("parent")

    assert origin.file == __file__
    assert origin.function == "test_the_origin_is_the_calling_line_outside_tidegate"
    assert origin.line == test_the_origin_is_the_calling_line_outside_tidegate.__code__.co_firstlineno + 1
    assert origin.parent_job == "parent"
