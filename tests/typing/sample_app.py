"""What a type checker has to understand. Checked by mypy in test_types.py, never run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

from tidegate import Failure, Job, Limit, Progress, Retry, Tidegate

gate = Tidegate()


@gate.task
def double(number: int) -> int:
    return 2 * number


@gate.task(
    concurrency=100,
    timeout=10,
    retry=Retry(attempts=5, base=0.2, cap=30),
    limits=[Limit("api", rate="5000/h", burst=50)],
)
async def fetch(url: str, *, deep: bool = False) -> bytes:
    return url.encode()


assert_type(double(2), int)
assert_type(double.map([1, 2]), Job[int])
assert_type(list(double.map([1]).results()), list[tuple[int, int]])
assert_type(fetch.map(["a"]), Job[bytes])
assert_type(fetch.starmap([("a",)], batch_size=10), Job[bytes])
assert_type(fetch.map(["a"]).wait(progress=True), Progress)
assert_type(fetch.map(["a"]).failures(), Iterator[Failure])
assert_type(fetch.map(["a"]).replay(error_type="ValueError"), Job[bytes])


async def use() -> None:
    assert_type(await fetch("a", deep=True), bytes)
    assert_type(await fetch.amap(["a"]), Job[bytes])
    async for index, value in fetch.map(["a"]).aresults():
        assert_type(index, int)
        assert_type(value, bytes)


double("two")  # type: ignore[arg-type]
fetch.map(["a"], bach_size=10)  # type: ignore[call-arg]
gate.task(concurency=3)  # type: ignore[call-overload]
