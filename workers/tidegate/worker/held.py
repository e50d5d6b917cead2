"""The held-lease file: which leases a process holds, where its supervisor can read it after any death.

One memory-mapped file per process, beside the crash journal. What was stored before the process died is in the kernel's
page cache, so ``kill -9`` loses nothing of it. A slot is written when a batch is claimed and cleared when it is settled;
length and checksum come last, so that a half-written record reads as none.

A request that claims a batch is noted before it is sent: when the process dies while the answer is under way, the
supervisor asks again by the same nonce, gets the lease that nobody would know of, and hands it back.

Layout: a header page (``magic, pid, state, beat, memory``), then one region per slot (``length, checksum, nonce of the
request under way, record``).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import zlib
from enum import IntEnum
from pathlib import Path

import msgspec

from tidegate.ledger.port import Lease, Token

_MAGIC = b"TGHELD01"
_HEADER = struct.Struct("<8sqqqq")
_HEADER_BYTES = 4096
_SLOT_HEAD = struct.Struct("<II")
_ASKED = struct.Struct("<32p")
_BODY = _SLOT_HEAD.size + _ASKED.size
#: Fits the attempts and crashes of the largest batch (100,000 items, a byte each). The file is sparse.
SLOT_BYTES = 256 << 10


class Stage(IntEnum):
    """How far a process is in its life."""

    STARTING = 0
    READY = 1
    DRAINING = 2


class HeldLease(msgspec.Struct, frozen=True, array_like=True):
    """A lease as its holder's supervisor needs it, without the payload; and the ticket that was at work on it."""

    tag: bytes
    job_id: str
    batch: int
    epoch: int
    nonce: str
    claimer: str
    items: int
    first_index: int
    task: str
    attempts: bytes = b""
    crashes: bytes = b""
    done_bits: bytes = b""
    hard_timeout_s: float = 0.0
    queue: str = ""
    ticket: int = -1
    #: The claiming request under way, filled in by the reader.
    asked: str = ""

    @property
    def is_lease(self) -> bool:
        """Whether there is a batch, and not only a ticket that asks for one."""
        return self.batch >= 0

    def lease(self) -> Lease:
        """The lease, to commit with."""
        return Lease(
            job_id=self.job_id,
            batch=self.batch,
            token=Token(self.epoch, self.nonce),
            claimer=self.claimer,
            items=self.items,
            first_index=self.first_index,
            payload=b"",
            done_bits=self.done_bits,
            attempts=self.attempts,
            crashes=self.crashes,
            task=self.task,
        )


class Header(msgspec.Struct, frozen=True):
    """What the process says of itself. ``beat`` grows while its Python threads run; ``memory`` is in bytes."""

    pid: int
    stage: Stage
    beat: int
    memory: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(HeldLease)


def lease_tag(lease: Lease) -> bytes:
    """Sixteen bytes that name the holding of a batch in the crash journal."""
    text = f"{lease.job_id}/{lease.batch}/{lease.token.epoch}/{lease.token.nonce}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class HeldFile:
    """The writer's end, in the process."""

    def __init__(self, path: Path, slots: int) -> None:
        self.path = path
        size = _HEADER_BYTES + slots * SLOT_BYTES
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._beat = 0
        self._stage = Stage.STARTING
        for slot in range(slots):
            self.clear(slot)
        self.beat(0)

    def beat(self, memory: int) -> None:
        """Say that Python runs, and how much memory it uses."""
        self._beat += 1
        _HEADER.pack_into(self._map, 0, _MAGIC, os.getpid(), int(self._stage), self._beat, memory)

    def stage(self, stage: Stage) -> None:
        """Say how far the process is."""
        self._stage = stage
        struct.pack_into("<q", self._map, 16, int(stage))

    def write(
        self, slot: int, tag: bytes, lease: Lease, *, hard_timeout_s: float = 0.0, queue: str = "", ticket: int = -1
    ) -> None:
        """Slot ``slot`` holds ``lease``."""
        token = lease.token
        record = _encoder.encode(
            (
                tag,
                lease.job_id,
                lease.batch,
                token.epoch,
                token.nonce,
                lease.claimer,
                lease.items,
                lease.first_index,
                lease.task,
                lease.attempts,
                lease.crashes,
                lease.done_bits,
                hard_timeout_s,
                queue,
                ticket,
            )
        )
        self._store(slot, record)

    def visit(self, slot: int, claimer: str, *, job_id: str, queue: str, ticket: int, nonce: str) -> None:
        """Slot ``slot`` has no lease; it asks for one with a ticket."""
        self._store(
            slot, _encoder.encode((b"", job_id, -1, 0, "", claimer, 0, 0, "", b"", b"", b"", 0.0, queue, ticket))
        )
        self.asking(slot, nonce)

    def asking(self, slot: int, nonce: str) -> None:
        """The slot is about to send a request that claims a batch."""
        _ASKED.pack_into(self._map, _HEADER_BYTES + slot * SLOT_BYTES + _SLOT_HEAD.size, nonce.encode())

    def _store(self, slot: int, record: bytes) -> None:
        start = _HEADER_BYTES + slot * SLOT_BYTES
        length = len(record)
        if length > SLOT_BYTES - _BODY:  # cannot happen with batches of legal size; then it waits for expiry
            self.clear(slot)
            return
        body = start + _BODY
        _SLOT_HEAD.pack_into(self._map, start, 0, 0)
        self._map[body : body + length] = record
        _ASKED.pack_into(self._map, start + _SLOT_HEAD.size, b"")
        _SLOT_HEAD.pack_into(self._map, start, length, zlib.crc32(record))

    def clear(self, slot: int) -> None:
        """Slot ``slot`` holds nothing."""
        _SLOT_HEAD.pack_into(self._map, _HEADER_BYTES + slot * SLOT_BYTES, 0, 0)

    def close(self) -> None:
        """Unmap; the file stays for the supervisor."""
        self._map.close()


def read_held(path: Path) -> tuple[Header | None, list[HeldLease]]:
    """What is in the file of a process, alive or dead. A damaged or missing file reads as nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None, []
    try:
        header = _header(os.pread(descriptor, _HEADER.size, 0))
        slots = max(0, os.fstat(descriptor).st_size - _HEADER_BYTES) // SLOT_BYTES
        found = [record for slot in range(slots) if (record := _record(descriptor, slot)) is not None]
        return header, found
    finally:
        os.close(descriptor)


def _header(data: bytes) -> Header | None:
    if len(data) < _HEADER.size:
        return None
    magic, pid, stage, beat, memory = _HEADER.unpack(data)
    return Header(pid, Stage(stage), beat, memory) if magic == _MAGIC else None


def _record(descriptor: int, slot: int) -> HeldLease | None:
    start = _HEADER_BYTES + slot * SLOT_BYTES
    head = os.pread(descriptor, _BODY, start)
    if len(head) < _BODY:
        return None
    length, checksum = _SLOT_HEAD.unpack_from(head)
    if not 0 < length <= SLOT_BYTES - _BODY:
        return None
    record = os.pread(descriptor, length, start + _BODY)
    if zlib.crc32(record) != checksum:
        return None
    try:
        asked = _ASKED.unpack_from(head, _SLOT_HEAD.size)[0].decode("ascii")
        return msgspec.structs.replace(_decoder.decode(record), asked=asked)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
