"""The compiled binding of the C executor. Only tidegate.executor imports it."""

from asyncio import AbstractEventLoop, Future
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context
from os import PathLike
from typing import Any, final

KIND_SYNC: int
KIND_COROUTINE: int
KIND_C: int
LIMIT_CONCURRENCY: int
LIMIT_RATE: int
LIMIT_SUPPLIED: int
LIMIT_BREAKER: int
core_version: str
simulate_address: int
simulate_sleep_address: int
simulate_spin_address: int

class ItemTimeout(TimeoutError): ...

def current() -> tuple[str | None, int, int] | None: ...
def coarse_index(value: int, /) -> int: ...
def journal_read(path: str | PathLike[str], /) -> tuple[int, int, list[tuple[bytes, int, int, int, int, int]]]: ...
def gather(*coros_or_futures: Awaitable[Any], return_exceptions: bool = False) -> Future[list[Any]]: ...
def simulate_plan(simulation: bytes, /) -> tuple[int, int]: ...

@final
class Limit:
    def set_capacity(self, permits: int, /) -> None: ...
    def set_rate(self, count: int, period_ns: int, burst: int, /) -> None: ...
    def offer(self, start_ns: int, interval_ns: int, count: int, tolerance_ns: int, /) -> None: ...
    def pause_until(self, until_ns: int, /) -> None: ...
    def stats(self) -> dict[str, int]: ...
    def demand(self) -> int: ...

@final
class Run:
    @property
    def remaining(self) -> int: ...
    @property
    def done(self) -> bool: ...
    def wait(self, timeout_ns: int, help: bool, /) -> bool: ...
    def take(self) -> tuple[Any, ...]: ...
    def cancel(self) -> None: ...
    def drain(self) -> None: ...
    def add_done_callback(self, callback: Callable[[Run], object], /) -> None: ...
    def times(self, position: int, /) -> tuple[int, int, int]: ...

@final
class CCall:
    @property
    def done(self) -> bool: ...
    def wait(self, timeout_ns: int, /) -> bool: ...
    def statuses(self) -> bytes: ...
    def outputs(self) -> list[bytes]: ...
    def counts(self) -> dict[str, int]: ...
    def cancel(self) -> None: ...

@final
class Lane:
    def start(
        self,
        items: Sequence[Any],
        function: Callable[..., Any] | None = None,
        shape: int = 0,
        token: bytes = b"",
        first_index: int = 0,
        skip: bytes = b"",
        attempts: bytes = b"",
        crashes: bytes = b"",
        context: Context | None = None,
        job_id: str | None = None,
        origin: str | None = None,
        detail: bool = False,
        stats: bool = True,
    ) -> Run: ...
    def start_c(
        self,
        address: int,
        doubles: bool,
        items: Any,
        *,
        out: Any = None,
        out_stride: int = 0,
        threads: int = 1,
        keep: object = None,
    ) -> CCall: ...
    def set_concurrency(self, permits: int, /) -> None: ...
    def set_paused(self, paused: bool, /) -> None: ...
    def snapshot(self) -> dict[str, Any]: ...
    def mean_run_ns(self) -> int: ...

@final
class Core:
    def __new__(
        cls,
        capture: Callable[..., Any],
        spawn: Callable[[str], object],
        journal: str | PathLike[str] | None = None,
        journal_slots: int = 1024,
        max_threads: int = 0,
        slabs: bool = True,
        seed: int = 0,
    ) -> Core: ...
    def limit(
        self,
        kind: int,
        *,
        keyed: bool = False,
        capacity: int = 0,
        count: int = 0,
        period_ns: int = 0,
        burst: int = 1,
        failure_ratio: float = 0.0,
        min_calls: int = 0,
        window_ns: int = 0,
        open_ns: int = 0,
        probes: int = 1,
        refuse: bool = False,
    ) -> Limit: ...
    def lane(
        self,
        name: str,
        function: object,
        kind: int,
        classify: Callable[..., tuple[bool, int, str | None]],
        limits: tuple[Limit, ...],
        keys: tuple[Callable[..., Any], ...],
        *,
        concurrency: int = 1,
        timeout_ns: int = 0,
        hard_ns: int = 0,
        max_wait_ns: int = 0,
        capacity: int = 0,
        max_crashes: int = 3,
        priority: int = 0,
        attempts: int = 1,
        base_ns: int = 0,
        factor: float = 2.0,
        cap_ns: int = 0,
        jitter: int = 1,
        deadline_ns: int = 0,
        retry_timeouts: bool = False,
        budget: float = 0.0,
        budget_floor: float = 0.0,
    ) -> Lane: ...
    def stats(self) -> dict[str, int]: ...
    def running(self) -> list[tuple[int, int]]: ...
    def trim(self) -> int: ...
    def check(self) -> None: ...
    def close(self, cancel: bool = True, /) -> None: ...
    def stop(self) -> None: ...
    def serve(self) -> None: ...
    def interrupt(self) -> None: ...

@final
class Pump:
    def __new__(
        cls,
        core: Core,
        loop: AbstractEventLoop,
        wrap: Callable[[Any], Coroutine[Any, Any, Any]],
        index: int = 0,
    ) -> Pump: ...
    @property
    def flights(self) -> int: ...
    @property
    def kind(self) -> int: ...
    def tick(self) -> None: ...
    def quiesce(self) -> None: ...
    def close(self) -> None: ...
    def stacks(self) -> list[tuple[str, int, int, list[tuple[str, int, str]]]]: ...

@final
class Driver:
    def __new__(cls, on_settled: Callable[..., object]) -> Driver: ...
    def __getattr__(self, name: str) -> Any: ...

@final
class ItemTask:
    def __new__(
        cls,
        coro: Coroutine[Any, Any, Any],
        *,
        loop: AbstractEventLoop | None = None,
        name: str | None = None,
        context: Context | None = None,
        eager_start: bool = False,
    ) -> ItemTask: ...
    def __getattr__(self, name: str) -> Any: ...
