"""Whether a server may hold the ledger, and the facts that ``tidegate doctor`` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from tidegate.errors import LedgerUnsuitable
from tidegate.ledger import keys
from tidegate.ledger.calls import Caller

_OLDEST = (6, 2)
#: The first version that says what is on its disk (WAITAOF).
_OLDEST_DURABLE = (7, 2)


def check(caller: Caller) -> dict[str, str]:
    """Server facts. ``LedgerUnsuitable`` when the server is too old or may throw keys away."""
    info: dict[str, Any] = caller.command("check", lambda client: client.info())
    version = str(info.get("redis_version", "0"))
    if _numbers(version) < _OLDEST:
        raise LedgerUnsuitable(
            f"the server at {caller.where} is Redis {version}",
            remedy="use Redis 6.2 or newer, or Valkey",
            version=version,
        )
    policy = str(info.get("maxmemory_policy", "noeviction"))
    limit = int(info.get("maxmemory", 0))
    if policy != "noeviction":
        raise LedgerUnsuitable(
            f"the server at {caller.where} throws keys away when it is full (maxmemory-policy {policy})",
            remedy="set maxmemory-policy noeviction: a full server then refuses new work and drains",
            policy=policy,
        )
    append_only = bool(int(info.get("aof_enabled", 0)))
    return {
        "server": f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}",
        "role": str(info.get("role", "")),
        "maxmemory_policy": policy,
        "maxmemory_bytes": str(limit),
        "used_memory_bytes": str(info.get("used_memory", 0)),
        "appendonly": "yes" if append_only else "no",
        "durability": _durability(append_only, info),
        "clients": str(info.get("connected_clients", "")),
        "uptime_s": str(info.get("uptime_in_seconds", "")),
        "run_id": str(info.get("run_id", "")),
    }


def kept(caller: Caller, job_ids: Sequence[str]) -> tuple[int, int]:
    """Bytes of the server's memory that results and dead letters of these jobs take (the server estimates), and bytes that it
    may use at all: its limit, or the machine's memory; 0 where it does not say."""

    def ask(client: redis.Redis) -> list[Any]:
        with client.pipeline(transaction=False) as pipe:
            pipe.info("memory")
            for job_id in job_ids:
                for part in ("results", "dead"):
                    pipe.memory_usage(keys.job_key(job_id, part))
            return pipe.execute()

    info, *sizes = caller.command("kept", ask)
    return sum(size or 0 for size in sizes), int(info.get("maxmemory") or info.get("total_system_memory") or 0)


def check_durable(caller: Caller) -> None:
    """``LedgerUnsuitable`` when the server cannot say that something is on its disk."""
    info: dict[str, Any] = caller.command("check", lambda client: client.info())
    version = str(info.get("redis_version", "0"))
    if _numbers(version) < _OLDEST_DURABLE:
        raise LedgerUnsuitable(
            f"the server at {caller.where} is Redis {version}, which cannot say what is on its disk",
            remedy='use Redis 7.2 or newer, or Valkey, or submit without durable="fsync"',
            version=version,
        )
    if not int(info.get("aof_enabled", 0)):
        raise LedgerUnsuitable(
            f"the server at {caller.where} keeps no append-only file, so nothing of it survives its death",
            remedy='set appendonly yes on the server, or submit without durable="fsync"',
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _durability(append_only: bool, info: dict[str, Any]) -> str:
    if append_only:
        failing = info.get("aof_last_write_status") == "err"
        return "append-only file cannot be written" if failing else "append-only file"
    return "none: a restart of the server loses every job; set appendonly yes"
