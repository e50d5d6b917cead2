"""The memory guard, with a clock and a measure that the test sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.executor.memory import MemoryGuard, cgroup_limit_bytes, memory_bytes, memory_limit_bytes


class House:
    """A process whose memory and time the test decides."""

    def __init__(self) -> None:
        self.used = 0
        self.now_s = 0.0
        self.paused = False
        self.guard = MemoryGuard(
            100, self.pause, self.resume, every_s=1.0, pause_s=5.0, measure=lambda: self.used, now_s=lambda: self.now_s
        )

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def after(self, seconds: float, used: int) -> bool:
        self.now_s += seconds
        self.used = used
        self.guard.check()
        return self.paused


def test_below_the_mark_nothing_happens() -> None:
    house = House()

    assert not house.after(1, 99)
    assert (house.guard.collections, house.guard.peak_bytes) == (0, 99)


def test_above_the_mark_garbage_is_collected_and_work_pauses_until_memory_falls() -> None:
    house = House()

    assert house.after(1, 150)
    assert (house.guard.collections, house.guard.pauses) == (1, 1)
    assert house.after(1, 120)
    assert not house.after(1, 80)


def test_a_pause_ends_even_if_memory_does_not_fall() -> None:
    house = House()

    assert house.after(1, 150)
    assert not house.after(5, 150)
    assert not house.after(1, 150)  # for a while: pausing for ever would free nothing
    assert house.after(5, 150)
    assert house.guard.pauses == 2


def test_it_measures_no_more_often_than_it_should() -> None:
    house = House()
    house.after(1, 10)
    house.after(0.5, 1000)

    assert house.guard.peak_bytes == 10


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/app/worker", {"app/memory.max": "500", "app/worker/memory.max": "max"}, 500),
        ("0::/app/worker", {"app/memory.max": "500", "app/worker/memory.max": "300"}, 300),
        ("0::/", {"memory.max": "700"}, 700),
        ("0::/on/the/host", {"memory.max": "900"}, 900),
        ("5:memory:/app", {"memory/app/memory.limit_in_bytes": "400"}, 400),
        ("5:memory:/app", {"memory/app/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("3:cpu,cpuacct:/app", {}, None),
        ("nonsense", {}, None),
    ],
)
def test_the_cgroup_limit_of_both_versions(
    tmp_path: Path, line: str, files: dict[str, str], expected: int | None
) -> None:
    process = tmp_path / "cgroup"
    process.write_text(line + "\n")
    root = tmp_path / "root"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")

    assert cgroup_limit_bytes(root, process) == expected


def test_this_process_has_a_limit_and_is_below_it() -> None:
    assert 0 < memory_bytes() < memory_limit_bytes()
