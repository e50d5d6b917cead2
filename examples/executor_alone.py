"""The executor without any server: limits, time-outs, retries and a report inside one process.

python executor_alone.py
"""

from __future__ import annotations

import random
import time

from tidegate import Executor, Retry

luck = random.Random(1)


def unreliable(number: int) -> int:
    """Works two times out of three."""
    time.sleep(0.005)
    if luck.random() < 1 / 3:
        raise ConnectionError("not this time")
    return number * number


def main() -> None:
    with Executor(concurrency=8, rate="200/s", retry=Retry(attempts=6, base=0.01), timeout=2) as executor:
        outcomes = executor.map(unreliable, range(200))  # never raises
        good = [outcome.value for outcome in outcomes if outcome.error is None]
        print(
            f"{len(good)} of {len(outcomes)} succeeded, {sum(outcome.attempts for outcome in outcomes)} attempts in all"
        )
        print(executor.report())


if __name__ == "__main__":
    main()
