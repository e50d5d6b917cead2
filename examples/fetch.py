"""An async task with everything that a polite crawler needs: concurrency, a limit for the whole cluster, time-outs, retries.

tidegate worker fetch:gate --processes 2              # in one terminal, in this folder
python fetch.py https://example.org/ …                # in another: one line per address, then the report
"""

from __future__ import annotations

import asyncio
import sys
import urllib.error
import urllib.request

from tidegate import Limit, Retry, RetryAfter, Tidegate

gate = Tidegate()


@gate.task(
    concurrency=50,
    timeout=10,
    retry=Retry(attempts=5, base=0.2, cap=30, not_on=(ValueError,)),
    limits=[Limit("fetch", rate="50/s", burst=10)],
)
async def fetch(url: str) -> int:
    """Size of the page at ``url``. Use the asynchronous HTTP client that you like; this one needs nothing installed."""
    return await asyncio.to_thread(_size, url)


def _size(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return len(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 429:  # every worker waits for as long as the server asks
            raise RetryAfter(float(error.headers.get("Retry-After", "1"))) from error
        if error.code < 500:  # asking again will not help
            raise ValueError(f"{error.code} for {url}") from error
        raise


def main() -> None:
    urls = sys.argv[1:]
    job = fetch.map(urls)
    job.wait(progress=True)
    for index, size in sorted(job.results()):
        print(f"{size:>9,} bytes  {urls[index]}")
    for failure in job.failures():
        print(f"   failed after {failure.attempts}: {failure.error_type}: {failure.message}")
    print(job.report())


if __name__ == "__main__":
    main()
