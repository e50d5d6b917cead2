"""A polite crawler: at most two requests at once to any host, and five a second, however many workers there are.

    python examples/polite_crawler.py --embedded

Run it with ``--embedded`` to see it on this machine alone: it starts a worker of its own, and a small web server on four
ports that stands for four hosts. One of them says "429, come back in a second" now and then: that pauses it, and nobody
else. At the end each server says the most requests that it saw at once.
"""

from __future__ import annotations

import argparse
import http.server
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from urllib.parse import urlsplit

from tidegate import Limit, Retry, RetryAfter, Tidegate

gate = Tidegate()


def host(url: str) -> str:
    """The key: what is limited together."""
    return urlsplit(url).netloc


@gate.task(
    concurrency=32, timeout=10, retry=Retry(attempts=5, base=0.2),
    limits=[Limit("host", concurrency=2, key=host), Limit("pace", rate="5/s", burst=2, key=host)],
)  # fmt: skip
def fetch(url: str) -> int:
    """Bytes of the page."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return len(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 429:
            raise RetryAfter(float(error.headers.get("Retry-After", 1))) from error
        raise


class Site(http.server.BaseHTTPRequestHandler):
    """A host that counts how many are inside."""

    inside, most, seen = Counter[int](), Counter[int](), Counter[int]()
    lock = threading.Lock()

    def do_GET(self) -> None:
        """Answers slowly; the first port is overloaded at its fifth request."""
        port = self.server.server_address[1]
        with self.lock:
            self.seen[port] += 1
            self.inside[port] += 1
            self.most[port] = max(self.most[port], self.inside[port])
            overloaded = port == min(self.seen) and self.seen[port] == 5
        time.sleep(0.05)
        body = b"overloaded" if overloaded else b"page"
        with self.lock:
            self.inside[port] -= 1
        self.send_response(429 if overloaded else 200)
        self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def main() -> None:
    """Serve four hosts, crawl them, say what they saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedded", action="store_true", help="run a worker in this process")
    parser.add_argument("--pages", type=int, default=15, help="pages of each host")
    options = parser.parse_args()
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) for _ in range(4)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = [f"http://127.0.0.1:{one.server_address[1]}/{page}" for page in range(options.pages) for one in servers]
    if options.embedded:
        from tidegate.testing import InProcessWorker

        with InProcessWorker(gate):
            crawl(urls)
    else:
        print("start workers beside this: tidegate worker polite_crawler:gate")
        crawl(urls)
    for server in servers:
        port = server.server_address[1]
        print(f"host 127.0.0.1:{port}: {Site.seen[port]} requests, {Site.most[port]} at once at most")


def crawl(urls: list[str]) -> None:
    """Fetch all of them, and print what became of them."""
    job = fetch.map(urls)
    job.wait(progress=True)
    print(job.report())


if __name__ == "__main__":
    main()
