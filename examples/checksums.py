"""A sync task that needs the processor: a chain of hashes for each number. What docker-compose.yml runs by default.

tidegate worker checksums:gate --processes 2          # in one terminal, in this folder
python checksums.py                                   # in another
"""

from __future__ import annotations

import hashlib

from tidegate import Tidegate

gate = Tidegate()

ROUNDS = 20_000


@gate.task(concurrency=2)
def digest(number: int | str) -> str:
    """SHA-256 of a number, ``ROUNDS`` times over."""
    value = str(number).encode()
    for _ in range(ROUNDS):
        value = hashlib.sha256(value).digest()
    return value.hex()


def main() -> None:
    job = digest.map(range(500))
    job.wait(progress=True)
    first = dict(job.results())[0]
    print(job.report())
    print(f"the first of {job.progress().done} digests: {first}")


if __name__ == "__main__":
    main()
