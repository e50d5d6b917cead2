"""current_item: which item the calling code runs for."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.executor import _native


@dataclass(frozen=True, slots=True)
class CurrentItem:
    """The item that the calling code runs for. ``index`` counts within the job; ``attempt`` counts from 1."""

    job_id: str | None
    index: int
    attempt: int

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this item, and for no other: hand it to services that deduplicate.

        >>> CurrentItem("j1", 7, 2).idempotency_key
        'j1:7'
        """
        return f"{self.job_id or ''}:{self.index}"


def current_item() -> CurrentItem | None:
    """The item that runs here, in threads and tasks that the item started too; ``None`` outside of items.

    >>> current_item() is None
    True
    """
    found = _native.current()
    return None if found is None else CurrentItem(*found)
