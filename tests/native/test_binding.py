"""The binding against its promises: equal arithmetic in C and Python, no leaks, a stub that tells the truth."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidegate
from tidegate.executor import _native
from tidegate.executor.host import Host, Lane
from tidegate.executor.memory import memory_bytes
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry, backoff_s
from tidegate.model.stats import coarse_bounds_ns, coarse_index, distributions

PATIENCE_S = 60.0


@given(st.integers(0, 2**64 - 1))
def test_coarse_buckets_are_the_same_in_c_and_python(value: int) -> None:
    index = _native.coarse_index(value)

    assert index == coarse_index(value)
    low, high = coarse_bounds_ns(index)
    assert low <= value < high


@pytest.fixture
def host() -> object:
    with Host(name="binding") as made:
        yield made


def fail(_value: object) -> None:
    raise ValueError("always")


@pytest.mark.parametrize("attempts", [2, 3, 5])
def test_waits_without_jitter_are_those_of_the_model(host: Host, attempts: int) -> None:
    """The time between attempts is at least what the model says, and the core charges it to backoff."""
    retry = Retry(attempts=attempts, base=0.004, factor=2, cap=0.01, jitter="none")
    expected_s = sum(backoff_s(retry, failed, Random(1)) for failed in range(1, attempts))

    run = host.lane("t", fail, TaskPolicy(retry=retry)).start([0])
    assert run.wait(PATIENCE_S)
    backoff = distributions(run.take().stats)["backoff"]

    assert expected_s <= backoff.sum_ns / 1e9


@pytest.mark.parametrize(("jitter", "low", "high"), [("full", 0.0, 1.0), ("equal", 0.5, 1.0), ("none", 1.0, 1.0)])
def test_jitter_draws_from_the_range_of_the_model(host: Host, jitter: str, low: float, high: float) -> None:
    """Waits too long to be made come back deferred: their lengths are the draws."""
    base_s = 1000.0
    retry = Retry(attempts=2, base=base_s, cap=base_s, jitter=jitter)  # type: ignore[arg-type]
    run = host.lane("t", fail, TaskPolicy(retry=retry, max_wait=0.001)).start(list(range(400)))
    assert run.wait(PATIENCE_S)
    draws = [due_ms / 1000 / base_s for _position, due_ms in run.take().deferred]

    assert len(draws) >= 399  # a draw below a millisecond is waited for
    assert low - 0.01 <= min(draws) <= max(draws) <= high + 0.001
    model = [backoff_s(retry, 1, Random(seed)) / base_s for seed in range(400)]
    assert sum(draws) / len(draws) == pytest.approx(sum(model) / len(model), abs=0.08)


def test_every_moment_of_an_item_is_charged_once(host: Host) -> None:
    """The five classes of a run's items add up to the time from start to settle."""
    run = host.lane("t", lambda value: sum(range(200)), TaskPolicy(concurrency=2)).start(list(range(500)))
    assert run.wait(PATIENCE_S)
    stats = run.take().stats
    classes = ("queued", "limited", "backoff", "running", "settling")

    assert all(stats[f"{name}_count"] == 500 for name in classes)
    for name in classes:
        buckets = sum(count for key, count in stats.items() if key.startswith(f"{name}:"))
        assert buckets == 500
        assert stats[f"{name}_min_ns"] <= stats[f"{name}_sum_ns"] / 500 <= stats[f"{name}_max_ns"]


# ---- leaks ----


async def suspends(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def fails_late(value: int) -> None:
    await asyncio.sleep(0)
    raise ValueError(value)


SCENES: dict[str, Callable[[Host], Lane]] = {
    "sync": lambda host: host.lane("t", str, TaskPolicy(concurrency=4)),
    "sync-fails": lambda host: host.lane("t", fail, TaskPolicy(retry=Retry(attempts=2, base=0))),
    "coroutine": lambda host: host.lane("t", suspends, TaskPolicy(concurrency=50, timeout=60)),
    "coroutine-fails": lambda host: host.lane("t", fails_late, TaskPolicy(retry=Retry(attempts=2, base=0))),
    "keyed": lambda host: host.lane(
        "t", str, TaskPolicy(), limits=[host.limit("k", concurrency=2, keyed=True)], keys=[lambda value: value % 7]
    ),
}


@pytest.mark.parametrize("scene", SCENES)
def test_memory_does_not_grow_with_the_number_of_runs(host: Host, scene: str) -> None:
    lane = SCENES[scene](host)

    def turn() -> None:
        for _ in range(20):
            run = lane.start(list(range(1000, 1200)))
            assert run.wait(PATIENCE_S)
            run.take()

    for _ in range(3):
        turn()
    gc.collect()
    objects, used = len(gc.get_objects()), memory_bytes()
    for _ in range(6):
        turn()
    gc.collect()

    assert len(gc.get_objects()) - objects < 200
    if "SANITIZED_BUILD" not in os.environ:  # freed memory is kept aside there
        assert memory_bytes() - used < 6_000_000


def test_refused_calls_leak_nothing(host: Host) -> None:
    """Every error path of start() lets go of its buffers, items and keys."""
    lane = host.lane("t", str, TaskPolicy())
    items = [object() for _ in range(10)]
    before = [sys.getrefcount(item) for item in items]
    for wrong in (
        {"shape": 3},
        {"attempts": b"\x01"},
        {"context": "no context"},
        {"tag": "text"},
        {"nonsense": 1},
    ):
        with pytest.raises((TypeError, ValueError)):
            lane.inside.start(items, **wrong)
    with pytest.raises(TypeError):
        lane.inside.start(5)  # type: ignore[arg-type]

    assert [sys.getrefcount(item) for item in items] == before


def test_hosts_come_and_go_without_a_trace() -> None:
    def turn() -> None:
        with Host() as host:
            host.lane("a", str, TaskPolicy(timeout=5)).start([1, 2]).wait(PATIENCE_S)
            host.lane("b", suspends, TaskPolicy(timeout=5)).start([1, 2]).wait(PATIENCE_S)

    for _ in range(5):
        turn()
    gc.collect()
    objects, files = len(gc.get_objects()), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        turn()
    gc.collect()

    assert len(gc.get_objects()) - objects < 200
    assert len(list(Path("/proc/self/fd").iterdir())) <= files


# ---- hostile bytes ----


@given(st.binary(max_size=4096))
def test_any_file_at_all_is_read_as_a_journal_or_refused(data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with pytest.raises((ValueError, OSError)):
            _native.journal_read(file.name)


def test_types_that_are_made_inside_cannot_be_made_outside() -> None:
    for kind in (_native.Run, _native.Lane, _native.Limit, _native.CCall):
        with pytest.raises(TypeError):
            kind()


@pytest.mark.slow
def test_the_stub_tells_the_truth(tmp_path: Path) -> None:
    source = Path(tidegate.__file__).resolve().parents[1]
    # The package under test is the installed one, or the source tree when it was put on the path.
    paths = {"PYTHONPATH": str(source), "MYPYPATH": str(source)} if source.name == "workers" else {}
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "tidegate.executor._native"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", **paths},
    )
    if "No module named mypy" in done.stderr:
        pytest.skip("mypy is not installed")

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
