"""The demo's app, as ``tidegate worker tidegate.demo.app:gate`` imports it: two tasks, as a user would write them."""

from __future__ import annotations

import ast
import threading
import warnings
from pathlib import Path
from typing import TypedDict

from tidegate import Limit, Retry, RetryAfter, Tidegate
from tidegate.demo.http_client import get

#: What the demo's server allows, and what its clients ask for together: a little less. The server's burst has room for all
#: that can be on the way at once (60 in each of two processes): requests that were sent in time may arrive together when the
#: server, which shares the machine with everybody else, has not run for a while.
SERVER_RATE, SERVER_BURST = 150.0, 150
CLIENT_RATE, CLIENT_BURST = 125.0, 30


#: Two threads in ast.parse at once fail with a SystemError about recursion in CPython before 3.11.8 (gh-106905). Held by the
#: slots of one process around the call; a process that is forked starts with it free, as no slot runs before the fork.
_parsing = threading.Lock()


class Source(TypedDict):
    """What is counted of one file."""

    lines: int
    functions: int
    longest: int


class ServerError(Exception):
    """The server could not answer this time."""


def sources(path: str) -> Source:
    """Parse one Python file and count. A file that is not valid Python is a failure that no retry can mend."""
    text = Path(path).read_bytes()
    with _parsing, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes and the like, in files that are invalid on purpose
        tree = ast.parse(text, path)
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {"lines": text.count(b"\n"), "functions": len(lengths), "longest": max(lengths, default=0)}


async def crawl(url: str) -> int:
    """Fetch one page and return its size. ``503`` and time-outs are tried again, ``429`` pauses every worker."""
    answer = await get(url)
    if answer.status == 429:
        raise RetryAfter(float(answer.headers.get("retry-after", "1")))
    if answer.status != 200:
        raise ServerError(f"{answer.status} from {url.partition('?')[0]}")
    return len(answer.body)


def build(url: str | None = None) -> Tidegate:
    """The app with its two tasks. Without ``url`` it finds its ledger as every app does."""
    gate = Tidegate(url)
    gate.task(concurrency=2)(sources)
    gate.task(
        concurrency=60,
        timeout=2.0,
        retry=Retry(attempts=8, base=0.1, cap=2.0),
        limits=[Limit("demo-server", rate=CLIENT_RATE, burst=CLIENT_BURST)],
    )(crawl)
    return gate


gate = build()
