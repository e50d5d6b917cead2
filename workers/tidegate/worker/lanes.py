"""Lanes: an executor lane for each task that this process gets work of, made when the first batch comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tidegate.errors import ConfigurationError
from tidegate.model.limit import Limit
from tidegate.model.limit_key import key_function
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
                keys = [key_function(one.name, one.key) for one in task.policy.limits if one.key is not None]
                lane = self._host.lane(name, task.function, task.policy, limits=limits, keys=keys)
                self._lanes[name] = WorkLane(name, lane, task.policy, limits)
            return self._lanes[name]

    def _limit(self, limit: Limit) -> HostLimit:
        """Tasks that name the same limit share it."""
        made = self._limits.get(limit.name)
        if made is None:
            supplied = limit.scope == "cluster"
            made = self._host.limit_of(limit, supplied=supplied)
            if supplied:
                self._agent.add(limit, made)
            else:
                made.pause_here()
            self._limits[limit.name] = made
        if made.keyed != (limit.key is not None):
            raise ConfigurationError(
                f"limit {limit.name!r} has a key in one task and none in another",
                remedy="give it a key in both, or use two names",
            )
        return made
