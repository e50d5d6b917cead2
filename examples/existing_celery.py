"""An app that has used Celery for years: its task is mapped over many items as it is, its workers stay what they are.

tidegate worker existing_celery:gate                  # in one terminal, in this folder
python existing_celery.py                             # in another
"""

from __future__ import annotations

import os

from celery import Celery

from tidegate import Tidegate

app = Celery("shop", broker=os.environ.get("TIDEGATE_BROKER_URL", "redis://localhost:6379/0"))


@app.task(name="shop.price", autoretry_for=(ConnectionError,), retry_backoff=True, max_retries=4, soft_time_limit=5)
def price(article: int) -> float:
    """The task as it was written for Celery; `price.delay(7)` works as ever."""
    return round(article * 1.19, 2)


gate = Tidegate(celery=app)


def main() -> None:
    job = gate.map(price, range(10_000))
    job.wait(progress=True)
    print(f"the sum of all prices: {sum(value for _, value in job.results()):,.2f}")
    print(job.report())


if __name__ == "__main__":
    main()
