"""The pytest plugin, as a user's test suite uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import pytest

_APP = """
    from tidegate import Tidegate

    gate = Tidegate()

    @gate.task
    def price(name):
        return len(name)
"""

_TESTS = """
    import os

    import shop


    def test_a_private_server_is_configured_and_empty(tidegate_server):
        assert os.environ["TIDEGATE_URL"] == tidegate_server.url
        assert shop.gate.settings.url is None  # made before the fixture: it finds no address, and inline() gives it one
        assert tidegate_server.client().dbsize() == 0
        tidegate_server.client().set("left", "behind")


    def test_it_is_empty_again(tidegate_server):
        assert tidegate_server.client().dbsize() == 0


    def test_inline():
        with shop.gate.inline():
            assert sorted(shop.price.map(["a", "bb"]).results()) == [(0, 1), (1, 2)]


    def test_a_real_worker(tidegate_server, tidegate_worker):
        tidegate_worker("shop:gate", processes=1)
        with shop.gate.connected_to(tidegate_server.url):
            job = shop.price.map(["a", "bb", "ccc"])
            assert job.wait(timeout=60).outcomes["succeeded"] == 3
"""


@pytest.mark.slow
@pytest.mark.timeout(400)  # a pytest, a server, a supervisor and a worker start, one after the other
def test_a_users_tests_run_with_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(textwrap.dedent(_APP))
    (tmp_path / "test_shop.py").write_text(textwrap.dedent(_TESTS))
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    installed = any(point.value == "tidegate.testing.plugin" for point in entry_points(group="pytest11"))
    options = [] if installed else ["-p", "tidegate.testing.plugin"]
    environment = {**os.environ, "TIDEGATE_STATE_DIR": str(tmp_path / "state")}

    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert "4 passed" in ran.stdout, ran.stdout + ran.stderr
    assert not (tmp_path / "state" / "server.json").exists()  # nothing fell back on the shared server of the user
