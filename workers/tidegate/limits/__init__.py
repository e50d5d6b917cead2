"""Cluster-wide permits, leased in blocks from Redis: a permit costs nanoseconds while the global bound stays exact."""

from tidegate.limits.agent import LimitAgent
from tidegate.limits.pause import pause
from tidegate.limits.port import SuppliedKeys, SuppliedLimit

__all__ = ["LimitAgent", "SuppliedKeys", "SuppliedLimit", "pause"]
