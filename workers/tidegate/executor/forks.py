"""Locks in a forked child: a thread that does not exist there may have held them, and would never let go.

Shared state: the set of owners, changed with the GIL only; a child replaces each owner's lock before anything else runs.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class _Owner(Protocol):
    _lock: threading.Lock


_owners: weakref.WeakSet[_Owner] = weakref.WeakSet()


def renew_lock_in_children(owner: _Owner) -> None:
    """From now on a forked child finds ``owner._lock`` free."""
    _owners.add(owner)


def _renew() -> None:
    for owner in list(_owners):
        owner._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew)
