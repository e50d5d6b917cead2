"""Lanes: an executor lane for each task that this process gets work of, made when the first batch comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tidegate.model.limit import Limit
from tidegate.worker.seam import WorkerTask
from tidegate.worker.work import WorkLane

if TYPE_CHECKING:
    from tidegate.executor.host import Host, HostLimit
    from tidegate.limits import LimitAgent


class Lanes(Mapping[str, WorkLane]):
    """Registered tasks by name. ``agent`` supplies the cluster-wide limits that tasks name."""

    def __init__(self, host: Host, tasks: Mapping[str, WorkerTask], agent: LimitAgent) -> None:
        self._host = host
        self._tasks = tasks
        self._agent = agent
        self._lanes: dict[str, WorkLane] = {}
        self._limits: dict[str, HostLimit] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> WorkLane:
        lane = self._lanes.get(name)
        return lane if lane is not None else self._made(name)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def made(self) -> Mapping[str, WorkLane]:
        """Only those that have had work."""
        return self._lanes

    def _made(self, name: str) -> WorkLane:
        with self._lock:
            if name not in self._lanes:
                task = self._tasks[name]
                limits = [self._limit(limit) for limit in task.policy.limits]
                lane = self._host.lane(name, task.function, task.policy, limits=limits)
                self._lanes[name] = WorkLane(name, lane, task.policy, limits)
            return self._lanes[name]

    def _limit(self, limit: Limit) -> HostLimit:
        """Tasks that name the same limit share it."""
        if limit.name not in self._limits:
            host_limit = self._host.limit(
                limit.name,
                rate_per_s=limit.rate_per_s,
                burst=limit.burst_permits if limit.rate is not None else None,
                concurrency=limit.concurrency,
                supplied=True,
            )
            self._agent.add(limit, host_limit)
            self._limits[limit.name] = host_limit
        return self._limits[limit.name]
