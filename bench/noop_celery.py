"""The app that the benchmark's Celery worker loads: the same task, its results in the same server (database 1)."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("noop_celery", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BACKEND"])
app.conf.update(
    task_default_queue="bench-celery",
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "100")),
    broker_connection_retry_on_startup=True,
    result_expires=3600,
)


@app.task(name="bench.noop")
def noop(number: int) -> int:
    """What is measured is everything around it."""
    return number
