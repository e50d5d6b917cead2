"""History: what happened per second and per ten seconds, in two rings that never grow."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

SECONDS = (1_000, 300)
TEN_SECONDS = (10_000, 360)


class Bucket(msgspec.Struct, array_like=True):
    """Sums over one step of time, except ``memory_bytes``, ``running``, ``concurrency`` and ``workers``: the highest seen."""

    succeeded: int = 0
    unsuccessful: int = 0
    retried: int = 0
    busy_ns: int = 0
    queued_ns: int = 0
    limited_ns: int = 0
    backoff_ns: int = 0
    running_ns: int = 0
    settling_ns: int = 0
    idle_ns: int = 0
    slot_ns: int = 0
    memory_bytes: int = 0
    running: int = 0
    concurrency: int = 0
    workers: int = 0


class Ring:
    """The newest ``capacity`` steps of ``width_ms`` each."""

    def __init__(self, width_ms: int, capacity: int, kept: dict[int, Bucket] | None = None) -> None:
        self.width_ms = width_ms
        self.capacity = capacity
        self._buckets: dict[int, Bucket] = {}
        self._newest = 0
        for step, bucket in sorted((kept or {}).items()):
            self._buckets[step] = bucket
            self._trim(step)

    def at(self, at_ms: int) -> Bucket | None:
        """The bucket of that time, made if need be; None when the time is older than the ring reaches."""
        step = at_ms // self.width_ms
        if step <= self._newest - self.capacity:
            return None
        bucket = self._buckets.get(step)
        if bucket is None:
            bucket = self._buckets[step] = Bucket()
            self._trim(step)
        return bucket

    def _trim(self, step: int) -> None:
        self._newest = max(self._newest, step)
        for old in [old for old in self._buckets if old <= self._newest - self.capacity]:
            del self._buckets[old]

    def points(self, until_ms: int) -> Iterator[tuple[int, Bucket]]:
        """``capacity`` steps that end before ``until_ms``, oldest first, empty ones included; each with its time in ms."""
        last = until_ms // self.width_ms
        for step in range(last - self.capacity, last):
            yield step * self.width_ms, self._buckets.get(step, Bucket())

    def kept(self) -> dict[int, Bucket]:
        """What a checkpoint keeps."""
        return dict(self._buckets)
