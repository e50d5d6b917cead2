"""Every example in a docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import tidegate


def _modules() -> list[str]:
    skipped = {"tidegate.__main__"}
    found = [info.name for info in pkgutil.walk_packages(tidegate.__path__, "tidegate.")]
    return sorted(name for name in found if name not in skipped)


@pytest.mark.parametrize("name", _modules())
def test_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL

    result = doctest.testmod(module, optionflags=flags, report=True)

    assert result.failed == 0
