"""Ctrl-C ends a command with 130, whatever it struck."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_STRUCK = """
import tidegate.cli

def run(arguments):
    try:
        exec("raise KeyboardInterrupt")  # as when it strikes while a dataclass is made
    except KeyboardInterrupt:
        return 130

tidegate.cli.run = run
tidegate.cli.main([])
"""


def test_the_code_is_130_also_when_it_struck_in_the_middle_of_an_import(tmp_path: Path) -> None:
    """CPython would end itself by SIGINT instead, and a script that looks at the code would see another one."""
    (tmp_path / "struck.py").write_text(_STRUCK)

    ended = subprocess.run([sys.executable, "-m", "struck"], cwd=tmp_path, timeout=60, check=False)

    assert ended.returncode == 130
