"""Signatures: who may have work done. HMAC-SHA256 (hashlib and hmac of the standard library) under a shared key.

Two things are signed by the producer and checked by the worker. The *manifest*: what a job is, its task and its options. Each
*batch*: its payload together with the job, the task, and the place of its items in the job, so that a signed payload is good
in its own place only. A signed payload is ``MAGIC``, 32 bytes of signature, and the payload as it was.

What this does not protect: see docs/protocol.md.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import msgspec

from tidegate.errors import ConfigurationError
from tidegate.model.job import JobSpec

#: 0xc1 begins no msgpack value, so that no payload without a signature can look like one with it.
MAGIC = b"\xc1TG1"
_SIGNED_FROM = len(MAGIC) + 32
_SHORTEST_KEY = 16
_MANIFEST = b"tidegate manifest 1\0"
_BATCH = b"tidegate batch 1\0"


class BadSignature(Exception):
    """Something is not signed, or not by a key that is known here; the text says what, and why."""


class Keyring:
    """The keys of an app. The first one signs; all of them are good, so that keys can be changed while jobs run.

    ``secret``: keys of at least 16 characters, separated by commas; ``None``: nothing is signed and nothing is checked.
    The keys are not shown by ``repr``.

    >>> ring = Keyring("a secret of some length")
    >>> signed = ring.sign_batch(b"payload", job_id="j1", task="app.f", first_index=0, items=2)
    >>> ring.open_batch(signed, job_id="j1", task="app.f", first_index=0, items=2)
    b'payload'
    >>> ring.open_batch(signed, job_id="j1", task="app.other", first_index=0, items=2)
    Traceback (most recent call last):
    ...
    tidegate.model.signing.BadSignature: the batch was altered, or signed with another key
    """

    def __init__(self, secret: str | None = None) -> None:
        # An empty text is a mistake, and would switch all checks off without a word.
        keys = [] if secret is None else [key.strip().encode() for key in secret.split(",")]
        if any(len(key) < _SHORTEST_KEY for key in keys):
            raise ConfigurationError(
                f"signing_key: a key is shorter than {_SHORTEST_KEY} characters",
                remedy="make one, for example with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        self._keys = keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._keys)}>"

    def sign_manifest(self, spec: JobSpec) -> JobSpec:
        """The spec with its signature; without keys as it is."""
        if not self._keys:
            return spec
        return msgspec.structs.replace(spec, signature=_mac(self._keys[0], _MANIFEST, _manifest(spec)).hex())

    def check_manifest(self, spec: JobSpec) -> None:
        """``BadSignature`` unless one of the keys signed it."""
        if not spec.signature:
            raise BadSignature("the job's manifest is not signed")
        claimed = spec.signature.encode()
        document = _manifest(spec)
        if not any(hmac.compare_digest(_mac(key, _MANIFEST, document).hex().encode(), claimed) for key in self._keys):
            raise BadSignature("the job's manifest was altered, or signed with another key")

    def sign_batch(self, payload: bytes, *, job_id: str, task: str, first_index: int, items: int) -> bytes:
        """The payload with its signature in front; without keys as it is."""
        if not self._keys:
            return payload
        return MAGIC + _mac(self._keys[0], _BATCH, _place(job_id, task, first_index, items), payload) + payload

    def open_batch(self, payload: bytes, *, job_id: str, task: str, first_index: int, items: int) -> bytes:
        """The payload alone. ``BadSignature`` unless one of the keys signed it for this place; without keys it is not asked."""
        signed = payload.startswith(MAGIC) and len(payload) >= _SIGNED_FROM
        if not self._keys:
            return payload[_SIGNED_FROM:] if signed else payload
        if not signed:
            raise BadSignature("the batch is not signed")
        claimed, inner = payload[len(MAGIC) : _SIGNED_FROM], payload[_SIGNED_FROM:]
        place = _place(job_id, task, first_index, items)
        if not any(hmac.compare_digest(_mac(key, _BATCH, place, inner), claimed) for key in self._keys):
            raise BadSignature("the batch was altered, or signed with another key")
        return inner


def _mac(key: bytes, *parts: bytes) -> bytes:
    """Each part but the last is of known length or carries it, so that no two documents give the same bytes."""
    return hmac.digest(key, b"".join(parts), "sha256")


def _place(job_id: str, task: str, first_index: int, items: int) -> bytes:
    document = msgspec.json.encode([job_id, task, first_index, items])
    return b"%d:%b" % (len(document), document)


def _manifest(spec: JobSpec) -> bytes:
    """The canonical form: what decides about what is run and kept, in this order. What is added to specs later is added to a
    second version of this form, so that versions of Tidegate agree about the first."""
    fields: Sequence[object] = (
        *(spec.job_id, spec.task, spec.queue, float(spec.ttl_s), spec.keep_results, spec.concurrency),
        *(float(spec.timeout_s), spec.attempts, list(spec.limits), spec.max_crashes, spec.replay_of, spec.shape),
    )
    return msgspec.json.encode(fields)


#: Signs nothing and checks nothing.
NO_KEYS = Keyring()
