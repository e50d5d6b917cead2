"""One process whose executor runs items of many keys under one cluster-wide keyed limit. Started by the tests beside it.

    python key_user.py URL LOG '{"name": …, "rate": …, "burst": …, "concurrency": …}' OPTIONS

The log is a file of 24-byte records (kind, key, ``time.monotonic_ns()``), written by the items themselves: 1 one began, 2
it ended. Records are written at once, so that a killed process leaves all of them. ``keys``: numbers below this are the
keys, taken in turn; ``items`` each; it runs until its standard input closes. Commands by line: ``retry-after KEY SECONDS``
(the next item of that key fails so), ``done`` (waits for all items), ``memory`` (resident bytes, keys known).
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import time

import psutil
import redis

from tidegate.errors import RetryAfter
from tidegate.executor.host import Host
from tidegate.limits import LimitAgent
from tidegate.model.limit import Limit
from tidegate.model.limit_key import key_function
from tidegate.model.policy import TaskPolicy
from tidegate.model.retry import Retry

BEGAN, ENDED = 1, 2


def main() -> None:
    url, path, limit_text, options_text = sys.argv[1:]
    options = json.loads(options_text)
    limit = Limit(**json.loads(limit_text), key=lambda number: f"key-{number % options['keys']}")
    log = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    work_s, told = options.get("work_s", 0.0), dict[int, float]()

    def item(number: int) -> None:
        key = number % options["keys"]
        os.write(log, struct.pack("=qqq", BEGAN, key, time.monotonic_ns()))
        try:
            if key in told:
                raise RetryAfter(told.pop(key))
            if work_s:
                time.sleep(random.uniform(0, 2 * work_s))
        finally:
            os.write(log, struct.pack("=qqq", ENDED, key, time.monotonic_ns()))

    host = Host()
    inside = host.limit_of(limit, supplied=True)
    policy = TaskPolicy(concurrency=options.get("threads", 8), retry=Retry(attempts=9))
    assert limit.key is not None
    lane = host.lane("item", item, policy, limits=[inside], keys=[key_function(limit.name, limit.key)], max_wait_s=0)
    run = lane.start(list(range(options["keys"] * options.get("items", 1000))))
    agent = LimitAgent(
        redis.Redis.from_url(url),
        {limit.name: (limit, inside)},
        f"user-{os.getpid()}",
        lease_s=options.get("lease_s", 8.0),
    )
    agent.start()
    for line in sys.stdin:
        command, *words = line.split()
        if command == "retry-after":
            told[int(words[0])] = float(words[1])
            print("told", flush=True)
        elif command == "done":
            run.wait()
            print(run.take().count, flush=True)
        elif command == "memory":
            print(psutil.Process().memory_info().rss, inside.inside.stats()["keys"], flush=True)
        elif command == "more":
            run = lane.start(list(range(options["keys"] * options.get("items", 1000))))
            print("more", flush=True)
    agent.stop()
    os._exit(0)  # items that still wait are not run to their end


main()
