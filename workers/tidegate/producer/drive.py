"""Pulls a source through a submission: a plain loop, and the same for coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from tidegate.errors import ConfigurationError, SubmissionConflict
from tidegate.producer.sources import is_async, sync_source, take, take_async
from tidegate.producer.submission import Submission

T = TypeVar("T")

_SKIP_PAGE = 10_000


def drive(submission: Submission, items: Iterable[Any] | AsyncIterable[Any]) -> str:
    """Submit all of ``items``; the job id. An async iterable gets an event loop of its own."""
    if isinstance(items, AsyncIterable):
        if _in_a_loop():
            raise ConfigurationError(
                "map() was given an async iterable inside a running event loop", remedy="use await task.amap(items)"
            )
        return asyncio.run(adrive(submission, items))
    source = sync_source(items)
    try:
        skip = submission.resume()
        if skip is None:
            submission.confirm()
            return submission.spec.job_id
        _demand_all(skip, sum(1 for _ in islice(source, skip)))
        while batch := take(source, submission.next_size()):
            if not submission.add(batch):
                break
        submission.finish()
        submission.confirm()
    except BaseException as error:
        submission.abandon(error)
        raise
    return submission.spec.job_id


async def adrive(submission: Submission, items: Iterable[Any] | AsyncIterable[Any]) -> str:
    """``drive`` for coroutines: reads an async iterable on the loop, a plain one in a thread, and writes in a thread."""
    if is_async(items):
        async_source = aiter(items)  # type: ignore[arg-type]

        async def next_batch(size: int) -> list[Any]:
            return await take_async(async_source, size)
    else:
        source = sync_source(items)  # type: ignore[arg-type]

        async def next_batch(size: int) -> list[Any]:
            return await asyncio.to_thread(take, source, size)

    try:
        skip = await asyncio.to_thread(submission.resume)
        if skip is None:
            await asyncio.to_thread(submission.confirm)
            return submission.spec.job_id
        skipped = 0
        while skipped < skip and (batch := await next_batch(min(_SKIP_PAGE, skip - skipped))):
            skipped += len(batch)
        _demand_all(skip, skipped)
        while batch := await next_batch(submission.next_size()):
            if not await _in_thread(submission, partial(submission.add, batch)):
                break
        await _in_thread(submission, submission.finish)
        await asyncio.to_thread(submission.confirm)
    except BaseException as error:
        await asyncio.to_thread(submission.abandon, error)
        raise
    return submission.spec.job_id


def _demand_all(skip: int, skipped: int) -> None:
    if skipped < skip:
        raise SubmissionConflict(
            f"the submission has {skip:,} items in the ledger already, and only {skipped:,} were given now",
            remedy="give the same items in the same order, or use another id",
        )


async def _in_thread(submission: Submission, function: Callable[[], T]) -> T:
    working = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        # The thread may be waiting for room. It must be out of the submission before anybody else touches it.
        submission.stop()
        await asyncio.wait([working])
        raise


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
