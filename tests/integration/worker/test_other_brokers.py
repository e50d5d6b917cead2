"""Tickets may go through any broker of kombu's; the ledger stays on Redis. Nothing is lost when the broker loses tickets."""

from __future__ import annotations

import signal

from celery import Celery
from worker_site import Site, wait_until
from worker_tasks import register

from tidegate import Tidegate

_APP = """
import os
from celery import Celery
from tidegate import Tidegate
from worker_tasks import register

app = Celery("theirs", broker="filesystem://")
folder = os.environ["WITNESS"] + ".broker"
os.makedirs(folder, exist_ok=True)
app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
gate = register(Tidegate(os.environ["TIDEGATE_URL"], celery=app))
"""


def _producer(site: Site) -> Tidegate:
    """The same app in this process: its tickets are files."""
    folder = f"{site.witness}.broker"
    app = Celery("theirs", broker="filesystem://")
    app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
    return register(Tidegate(site.url, celery=app))


def test_tickets_may_be_files_in_a_folder(site: Site) -> None:
    (site.folder / "files.py").write_text(_APP)
    tree = site.start(app="files:gate", sweep_s=0.3).ready()
    gate = _producer(site)
    job = gate.map("double", range(500), batch_size=10)
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 500}
    assert site.testimony(job).executed_again == 0
    assert site.gate.ledger().client.llen("tidegate") == 0, "no ticket went through Redis"  # type: ignore[attr-defined]
    tree.signal(signal.SIGTERM)
    assert tree.wait() == 0
    gate.close()


def test_what_a_broker_loses_is_sent_again(site: Site) -> None:
    (site.folder / "files.py").write_text(_APP)
    gate = _producer(site)
    (site.folder / "witness.broker").mkdir()
    job = gate.map("double", range(100), batch_size=10)
    lost = list((site.folder / "witness.broker").glob("*.msg"))
    assert lost
    for message in lost:
        message.unlink()
    site.start(app="files:gate", sweep_s=0.3).ready()
    wait_until(lambda: job.progress().ended, "a sweeper sent the tickets again")
    assert site.outcomes(job) == {"succeeded": 100}
    gate.close()
