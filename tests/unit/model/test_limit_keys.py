"""Keys of limits: the same number in every process, one for each key, and a typed error for what is no key."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tidegate import Limit
from tidegate.errors import ConfigurationError, LimitKeyError
from tidegate.model.limit_key import key_function, key_id


def test_a_key_has_the_same_number_in_every_process_whatever_its_hash_seed_is() -> None:
    """Python's own hash of text differs from process to process; a limit of the cluster could not use it."""
    code = (
        "from tidegate.model.limit_key import key_id; print([key_id(k) for k in ('example.org', 7, b'x', 'y' * 999)])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert told == {f"{[key_id(k) for k in ('example.org', 7, b'x', 'y' * 999)]}\n"}


def test_keys_of_different_types_and_lengths_are_different_keys() -> None:
    keys: list[Any] = ["1", 1, b"1", "", b"", 0, -1, 255, 256, 1 << 100_000, "x" * 10_000, "x" * 10_001, "\ud800", "é"]
    numbers = [key_id(key) for key in keys]
    assert len(set(numbers)) == len(keys)
    assert all(0 <= number < (1 << 64) - 1 for number in numbers)  # all ones mean "no key" in the core


def test_a_key_function_says_which_limit_could_not_be_told_and_why() -> None:
    number = key_function("host", lambda item: item["host"])
    assert number({"host": "a"}) == key_id("a")
    assert number({"host": None}) is None
    with pytest.raises(LimitKeyError, match=r"limit 'host' cannot be told: KeyError: 'host'"):
        number({})
    with pytest.raises(LimitKeyError, match="is a float"):
        number({"host": 1.5})


def test_a_limit_refuses_what_cannot_be_its_key_or_scope() -> None:
    async def asynchronous(url: str) -> str:
        return url

    with pytest.raises(ConfigurationError, match="plain function"):
        Limit("host", concurrency=1, key=asynchronous)
    with pytest.raises(ConfigurationError, match="plain function"):
        Limit("host", concurrency=1, key="host")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match='use "cluster" or "process"'):
        Limit("host", concurrency=1, scope="host")
