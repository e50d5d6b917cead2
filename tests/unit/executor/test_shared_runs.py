"""Several threads work on one run: what one thread began another may finish, and nothing is lost between them."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tidegate.executor.host import Host
from tidegate.model.policy import TaskPolicy

PATIENCE_S = 60.0


@pytest.fixture
def _eager_switches() -> Iterator[None]:
    """The interpreter's lock changes hands five hundred times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("_eager_switches")
def test_every_failure_keeps_its_own_error_when_threads_take_over_from_one_another(host: Host) -> None:
    """One thread describes failures while another, which ran them, drops the errors of items that are to be retried."""

    def fails(number: int) -> None:
        if number % 7 == 0:
            time.sleep(0.0005)  # long enough that an idle thread takes over the rest of the run
        raise ValueError(str(number))

    lane = host.lane("fails", fails, TaskPolicy(concurrency=8))
    seen: Counter[tuple[str, bool]] = Counter()
    for _ in range(20):
        run = lane.start(list(range(400)))
        assert run.wait(PATIENCE_S)
        seen.update((failure.error_type, failure.message == str(failure.position)) for failure in run.take().failures)

    assert seen == {("ValueError", True): 8000}
