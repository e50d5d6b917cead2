"""Submission ids: any text of the user's choice names one job, always the same."""

from __future__ import annotations

import hashlib
import re

from tidegate.errors import ConfigurationError

_JOB_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}\Z")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def job_id_for(name: str) -> str:
    """The job id that ``name`` stands for: itself when it is a job id, else 130 bits of its SHA-256.

    >>> job_id_for("nightly-2026-11-21") == job_id_for("nightly-2026-11-21") != job_id_for("nightly-2026-11-22")
    True
    >>> job_id_for(job_id_for("nightly")) == job_id_for("nightly")
    True
    """
    if not isinstance(name, str) or not name or len(name) > 1000:
        raise ConfigurationError(f"id={name!r}", remedy="use a text of 1 to 1000 characters")
    if _JOB_ID.match(name):
        return name
    number = int.from_bytes(hashlib.sha256(b"tidegate submission\0" + name.encode()).digest()) >> (256 - 130)
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
