"""The Python face of the C executor."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate.executor._native import gather
    from tidegate.executor.current import CurrentItem, current_item
    from tidegate.executor.executor import Executor, ItemOutcome
    from tidegate.executor.kinds import CFunction
    from tidegate.executor.lanes import Breaker
    from tidegate.executor.sleeping import sleep

__all__ = ["Breaker", "CFunction", "CurrentItem", "Executor", "ItemOutcome", "current_item", "gather", "sleep"]

_HOMES = {
    "Breaker": "tidegate.executor.lanes",
    "CFunction": "tidegate.executor.kinds",
    "CurrentItem": "tidegate.executor.current",
    "Executor": "tidegate.executor.executor",
    "ItemOutcome": "tidegate.executor.executor",
    "current_item": "tidegate.executor.current",
    "gather": "tidegate.executor._native",
    "sleep": "tidegate.executor.sleeping",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tidegate.executor' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
