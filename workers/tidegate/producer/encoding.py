"""A list of items becomes payloads within the limits: one encoder call per batch, and errors that name the item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tidegate.errors import PayloadError, PayloadTooLarge
from tidegate.model.job import BatchPayload, JobSpec
from tidegate.model.signing import Keyring
from tidegate.model.wire import Shape, encode_argument, encode_items


def encode_call(args: tuple[Any, ...], kwargs: dict[str, Any], *, max_bytes: int) -> msgspec.Raw:
    """The arguments of one call in wire form. ``PayloadError``: they cannot be encoded, ``PayloadTooLarge``: over the limit."""
    try:
        encoded = encode_argument((args, kwargs))
    except (TypeError, OverflowError, RecursionError, ValueError) as error:
        raise PayloadError(
            f"the arguments cannot be encoded: {error}", remedy="send plain data, a dataclass or a msgspec.Struct"
        ) from error
    if len(encoded) > max_bytes - 16:  # what the batch adds around its only item
        raise PayloadTooLarge(
            f"the arguments take {len(encoded):,} bytes, over the limit of {max_bytes:,} for a batch",
            remedy="send a reference instead of the contents, or raise max_batch_bytes",
        )
    return msgspec.Raw(encoded)


def signed(keyring: Keyring, spec: JobSpec, first_index: int, batch: BatchPayload) -> BatchPayload:
    """The batch with its signature, if there are keys."""
    if not keyring:
        return batch
    data = keyring.sign_batch(
        batch.data, job_id=spec.job_id, task=spec.task, first_index=first_index, items=batch.items
    )
    return BatchPayload(batch.items, data)


def encode_batches(
    items: list[Any], shape: Shape, *, first_index: int, max_bytes: int, may_split: bool
) -> Iterator[BatchPayload]:
    """Payloads for ``items``, in order: one, or more when it would be too large and the split is ours to choose.

    ``first_index``: index in the job of the first item. ``PayloadError``: an item cannot be encoded, ``PayloadTooLarge``:
    it (or the batch of the size that the user fixed) is over ``max_bytes``; both name the item by its index in the job.
    """
    try:
        yield BatchPayload(len(items), encode_items(items, shape, max_bytes=max_bytes))
    except PayloadTooLarge as error:
        if len(items) == 1:
            raise PayloadTooLarge(
                f"item {first_index} takes {error.facts['bytes']:,} bytes, over the limit of {max_bytes:,} for a batch",
                remedy="send a reference instead of the contents, or raise max_batch_bytes",
                index=first_index,
                **error.facts,
            ) from None
        if not may_split:
            raise PayloadTooLarge(error.cause, remedy=error.remedy, index=first_index, **error.facts) from None
        middle = len(items) // 2
        for half, offset in ((items[:middle], 0), (items[middle:], middle)):
            yield from encode_batches(
                half, shape, first_index=first_index + offset, max_bytes=max_bytes, may_split=True
            )
    except PayloadError as error:
        index = first_index + int(error.facts.get("position", 0))
        raise PayloadError(
            f"item {index} cannot be encoded: {error.__cause__ or error.cause}", remedy=error.remedy, index=index
        ) from error.__cause__
