"""Tasks: what the decorator makes of a function, its name, its policy, and what it says to nonsense."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

from tidegate import ConfigurationError, Limit, Retry, TaskNotFound, Tidegate
from tidegate.model.policy import TaskPolicy


@pytest.fixture
def gate() -> Tidegate:
    return Tidegate("redis://localhost:1/0")  # nothing is connected before it is needed


def test_a_task_is_still_the_plain_function(gate: Tidegate) -> None:
    @gate.task
    def add(one: int, two: int = 1) -> int:
        """Adds."""
        return one + two

    assert add(1) == 2
    assert add(1, two=5) == 6
    assert add.__doc__ == "Adds."
    assert add.__name__ == "add"
    assert not add.is_async


def test_an_async_task_is_still_a_coroutine_function(gate: Tidegate) -> None:
    @gate.task(concurrency=100, timeout=10)
    async def double(number: int) -> int:
        return 2 * number

    assert double.is_async
    assert asyncio.run(double(4)) == 8


def test_options_become_the_policy(gate: Tidegate) -> None:
    limits = [Limit("api", rate="5000/h", burst=50)]

    @gate.task(
        name="crawl",
        concurrency=9,
        rate="3/s",
        timeout=5,
        retry=Retry(attempts=4),
        limits=limits,
        queue="slow",
        batch_size=7,
    )
    def fetch(url: str) -> str:
        return url

    assert fetch.policy == TaskPolicy(
        concurrency=9, rate="3/s", timeout=5, retry=Retry(attempts=4), limits=(Limit("api", rate="5000/h", burst=50),)
    )
    assert (fetch.name, fetch.queue, fetch.defaults.batch_size) == ("crawl", "slow", 7)
    assert gate.tasks["crawl"] is fetch


def test_without_options_the_queue_is_the_apps() -> None:
    gate = Tidegate("redis://localhost:1/0", queue="crawl")

    assert gate.task(test_without_options_the_queue_is_the_apps).queue == "crawl"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency=0: use 1 or more"),
        ({"timeout": -1}, "timeout=-1"),
        ({"rate": "fast"}, "rate 'fast' is not a rate"),
        ({"retries": 3}, "no option retries: use name, concurrency"),
        ({"retry": 3}, "retry=3: use Retry"),
        ({"limits": ["api"]}, "'api' is not a Limit"),
    ],
)
def test_nonsense_options_are_refused_where_they_are_written(
    gate: Tidegate, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        gate.task(**options)(print)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"batch_size": 10**6}, {"ttl_s": -1}, {"patience_s": "long"}, {"size": 3}]
)
def test_nonsense_in_a_submission_is_refused_before_a_connection_is_made(
    gate: Tidegate, options: dict[str, object]
) -> None:
    task = gate.task(print)

    with pytest.raises(ConfigurationError, match=next(iter(options))):
        task.map([1], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"processes": 0}, {"queue": "with space"}, {"memory_soft": 2}])
def test_nonsense_settings_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Tidegate("redis://localhost:1/0", **options)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="retries"):
        Tidegate(retries=3)


def test_a_function_that_is_not_one_is_refused(gate: Tidegate) -> None:
    with pytest.raises(ConfigurationError, match="not a function"):
        gate.task("fetch")  # type: ignore[call-overload]


def test_a_task_is_found_by_name_and_by_its_end_and_close_names_are_told(gate: Tidegate) -> None:
    @gate.task(name="shop.prices.fetch")
    def fetch() -> None: ...

    @gate.task(name="shop.stock.count")
    def count() -> None: ...

    assert gate.find_task("shop.prices.fetch") is fetch
    assert gate.find_task("count") is count
    assert gate.find_task(fetch) is fetch
    with pytest.raises(TaskNotFound, match=r"no task 'shop\.prices\.fetsch': did you mean shop\.prices\.fetch"):
        gate.find_task("shop.prices.fetsch")
    with pytest.raises(TaskNotFound, match="is not a task"):
        gate.find_task(5)


def test_a_function_defined_again_replaces_the_old_one_and_another_one_does_not(gate: Tidegate) -> None:
    """A notebook's cell is run again all the time; two functions under one name are a mistake."""

    def make(result: int) -> object:
        @gate.task(name="again")
        def task() -> int:
            return result

        return task

    make(1)
    second = make(2)
    assert gate.tasks["again"] is second

    with pytest.raises(ConfigurationError, match="two tasks are called 'again'"):
        gate.task(name="again")(print)


def test_a_task_of_a_script_has_the_name_that_a_worker_sees(tmp_path: Path) -> None:
    """A script is ``__main__`` to itself and a module to the worker: both must mean the same task."""
    script = tmp_path / "shop.py"
    script.write_text(
        "from tidegate import Tidegate\n"
        "gate = Tidegate('redis://localhost:1/0')\n"
        "@gate.task\n"
        "def price(item): ...\n"
        "print(price.name)\n"
    )
    as_script = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    as_module = subprocess.run([sys.executable, "-m", "shop"], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert as_script.stdout == as_module.stdout == "shop.price\n"


@pytest.fixture
def celery() -> Celery:
    return Celery("shop", broker="redis://broker.example:6379/3", set_as_current=False)


def test_tasks_of_a_celery_app_are_tasks(celery: Celery) -> None:
    gate = Tidegate(celery=celery)

    @celery.task(name="shop.add", shared=False)
    def add(one: int, two: int) -> int:
        return one + two

    found = gate.find_task(add)
    assert found.function(1, 2) == 3
    assert found.name == "shop.add"
    assert "shop.add" in gate.tasks
    assert not any(name.startswith("celery.") for name in gate.tasks)
    assert gate.find_task("shop.add") is found
    assert gate.celery is celery
    assert (
        gate.url == "redis://broker.example:6379/3"
    )  # their Redis serves as the ledger when nothing else is configured


def test_what_celerys_options_say_is_kept(celery: Celery) -> None:
    gate = Tidegate(celery=celery)

    @celery.task(
        name="fetch",
        shared=False,
        autoretry_for=(OSError,),
        retry_backoff=2,
        retry_backoff_max=60,
        max_retries=4,
        rate_limit="30/m",
        soft_time_limit=5,
        time_limit=8,
    )
    def fetch(url: str) -> str:
        raise OSError(url)

    task = gate.find_task(fetch)
    policy = task.policy
    assert policy.retry == Retry(attempts=5, base=2, cap=60, on=(OSError,))
    assert (policy.timeout, policy.hard_timeout, policy.rate) == (5, 8, "30/m")
    with pytest.raises(OSError, match="here"):  # the plain function: Celery's own retry would send a message
        task.function("here")


def test_a_bound_celery_task_is_given_itself(celery: Celery) -> None:
    gate = Tidegate(celery=celery)

    @celery.task(name="bound", bind=True, shared=False)
    def bound(self: object, number: int) -> tuple[str, int]:
        return self.name, number  # type: ignore[attr-defined]

    assert gate.find_task(bound).function(3) == ("bound", 3)


def test_settings_and_single_options_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="both given"):
        Tidegate(settings=Tidegate("redis://localhost:1/0").settings, queue="x")
