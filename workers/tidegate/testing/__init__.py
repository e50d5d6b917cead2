"""For the tests of those who use Tidegate: a worker inside the test's process, and pytest fixtures with a private server.

``inline(gate)``: jobs are run by this process, through the real ledger and with real serialisation, before ``map`` returns.
``drain(gate)``: run what was submitted earlier until nothing is left. ``WorkerProcess``: a real worker beside the test.
Fixtures ``tidegate_server`` and ``tidegate_worker``: see ``tidegate.testing.plugin``, which pytest finds by itself.
"""

from tidegate.testing.inline import InProcessWorker, drain, inline
from tidegate.testing.process import WorkerProcess

__all__ = ["InProcessWorker", "WorkerProcess", "drain", "inline"]
