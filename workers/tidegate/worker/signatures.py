"""Signatures: whether this process may run what it was handed. Without a signing key everything is run.

A job's manifest is looked up once, every batch is checked. What fails is counted and kept in the quarantine like a message
that is no ticket, and its job is parked by the caller.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Callable

from tidegate.ledger.port import Lease, Ledger
from tidegate.model.signing import MAGIC, BadSignature, Keyring
from tidegate.worker.patience import Patience

log = logging.getLogger(__name__)

_REMEMBERED = 1000
_REMEDY = (
    "if the producer is yours, give producers and workers the same TIDEGATE_SIGNING_KEY, then resume the job; "
    "if not, cancel it, and find out who can write to the server"
)


class Signatures:
    """``refuse(reason, sample)`` counts and keeps. Any thread may ask."""

    def __init__(
        self, keyring: Keyring, ledger: Ledger, patience: Patience, refuse: Callable[[str, bytes], None]
    ) -> None:
        self._keyring = keyring
        self._ledger = ledger
        self._patience = patience
        self._refuse = refuse
        self._good: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._told = False

    def opened(self, lease: Lease, *, give_up: Callable[[], bool]) -> Lease:
        """The lease with its payload as the producer made it. ``BadSignature`` with what to do."""
        if not self._keyring and not lease.payload.startswith(MAGIC):
            return lease
        try:
            payload = self._keyring.open_batch(
                lease.payload,
                job_id=lease.job_id,
                task=lease.task,
                first_index=lease.first_index,
                items=lease.items,
            )
            if self._keyring:
                self._check_manifest(lease, give_up)
            elif not self._told:
                self._told = True
                log.warning("jobs are signed, and this worker has no TIDEGATE_SIGNING_KEY: nothing is checked")
        except BadSignature as error:
            self._refuse(f"job {lease.job_id}, batch {lease.batch}: {error}", lease.payload)
            raise BadSignature(f"{error}: {_REMEDY}") from None
        return dataclasses.replace(lease, payload=payload)

    def _check_manifest(self, lease: Lease, give_up: Callable[[], bool]) -> None:
        key = (lease.job_id, lease.task)
        if key in self._good:
            return
        spec = self._patience.ask(lambda: self._ledger.progress(lease.job_id), give_up=give_up).spec
        if spec is None or (spec.job_id, spec.task) != key:
            raise BadSignature("the job's manifest is not that of its batches")
        self._keyring.check_manifest(spec)
        self._good[key] = None
        while len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)
