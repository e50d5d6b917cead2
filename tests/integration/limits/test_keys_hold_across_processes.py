"""A keyed limit used by several real processes: the bound of every key holds, whatever is killed, and keys come and go.

The witness is the log that the items of each process write themselves, on one clock; the server is not asked what ran."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tidegate.limits import pause

SCRIPT = Path(__file__).with_name("key_user.py")


class Process:
    def __init__(self, url: str, log: Path, limit: dict[str, Any], options: dict[str, Any]) -> None:
        self.log = log
        self.log.touch()
        self.killed_ns = 0
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), url, str(log), json.dumps(limit), json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def say(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.killed_ns = time.monotonic_ns()

    def close(self) -> None:
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def events(self) -> list[tuple[int, int, int]]:
        """(time, +1 or -1, key); what ran when the process was killed ended then."""
        data = self.log.read_bytes()
        data = data[: len(data) // 24 * 24]
        found = [(at, 1 if kind == 1 else -1, key) for kind, key, at in struct.iter_unpack("=qqq", data)]
        if self.killed_ns:
            for key, count in Counter({key: sum(s for _, s, k in found if k == key) for _, _, key in found}).items():
                found += [(self.killed_ns, -1, key)] * count
        return found

    def began(self, key: int) -> list[int]:
        return [at for at, step, one in self.events() if step > 0 and one == key]


class Crowd:
    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.all = url, folder, list[Process]()

    def start(self, limit: dict[str, Any], **options: Any) -> Process:
        self.all.append(Process(self.url, self.folder / f"log{len(self.all)}", limit, options))
        return self.all[-1]

    def events(self) -> list[tuple[int, int, int]]:
        return sorted(event for process in self.all for event in process.events())

    def peaks(self) -> Counter[int]:
        now, most = Counter[int](), Counter[int]()
        for _, step, key in self.events():
            now[key] += step
            most[key] = max(most[key], now[key])
        return most

    def began(self) -> dict[int, list[int]]:
        found = defaultdict[int, list[int]](list)
        for at, step, key in self.events():
            if step > 0:
                found[key].append(at)
        return found

    def goes_on_without(self, quiet: int, other: int, *, for_s: float) -> bool:
        """Whether the last of one key began that much before the last of another; who is just slow shows in both."""
        began = self.began()
        return began[other][-1] > began[quiet][-1] + for_s * 1e9

    def wait_until(self, condition: Any, what: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
            time.sleep(0.02)


@pytest.fixture
def crowd(ledger_url: str, tmp_path: Path) -> Iterator[Crowd]:
    crowd = Crowd(ledger_url, tmp_path)
    yield crowd
    for process in crowd.all:
        process.close()


@pytest.mark.parametrize("permits", [1, 3])
def test_no_instant_sees_more_of_a_key_than_its_limit(crowd: Crowd, permits: int) -> None:
    limit = {"name": "host", "concurrency": permits}
    users = [crowd.start(limit, keys=6, items=30, work_s=0.003, threads=16) for _ in range(3)]
    assert [user.say("done") for user in users] == ["180"] * 3
    peaks = crowd.peaks()
    assert len(peaks) == 6
    assert set(peaks.values()) == {permits}, "the limit was passed, or never used up"


def test_the_permits_of_killed_processes_come_back_and_no_bound_breaks(crowd: Crowd) -> None:
    limit = {"name": "host", "concurrency": 2}
    for _ in range(3):
        victim = crowd.start(limit, keys=4, work_s=0.02, lease_s=2)
        other = crowd.start(limit, keys=4, work_s=0.02, lease_s=2)
        crowd.wait_until(lambda v=victim, o=other: v.began(0) and o.began(0), "both use a key")
        victim.kill()
    seen = {key: len(times) for key, times in crowd.began().items()}
    crowd.wait_until(
        lambda: all(len(times) > seen[key] + 20 for key, times in crowd.began().items()), "uses after the last kill"
    )
    assert max(crowd.peaks().values()) <= 2


def test_a_process_that_cannot_renew_stops_and_comes_back_without_passing_the_bound(
    own_server: Any, crowd: Crowd
) -> None:
    """Under another holder's name, so that what the server still counted under the old one cannot come alive again."""
    crowd.url = own_server.url
    limit = {"name": "host", "concurrency": 2}
    users = [crowd.start(limit, keys=3, work_s=0.01, lease_s=2) for _ in range(2)]
    crowd.wait_until(lambda: all(user.began(0) for user in users), "uses before")
    own_server.kill()
    crowd.wait_until(lambda: time.monotonic_ns() > crowd.events()[-1][0] + 1_500_000_000, "no use for 1.5 s")
    last = crowd.events()[-1][0]
    own_server.start()
    crowd.wait_until(lambda: all(times[-1] > last for times in crowd.began().values()), "uses of every key after")
    assert max(crowd.peaks().values()) <= 2


def test_no_window_of_a_key_is_over_its_rate(crowd: Crowd) -> None:
    """An item notes its own start, after the executor's, by more when the machine is busy: hence the leeway in each window.
    Two processes that did not know of each other would be over it by fifteen starts; tests of slots allow none."""
    rate, burst = 20, 3
    users = [crowd.start({"name": "pace", "rate": rate, "burst": burst}, keys=8, items=12) for _ in range(3)]
    assert [user.say("done") for user in users] == ["96"] * 3
    for times in crowd.began().values():
        assert len(times) == 36
        for first, start in enumerate(times):
            for last in range(first + 1, len(times)):
                assert last - first + 1 <= rate * ((times[last] - start) / 1e9 + 0.3) + burst


def test_a_retry_after_stops_its_key_in_every_process_and_no_other_key(crowd: Crowd) -> None:
    limit = {"name": "host", "concurrency": 2}
    one, other = (crowd.start(limit, keys=2, items=20_000, work_s=0.005) for _ in range(2))
    crowd.wait_until(lambda: one.began(0) and other.began(0), "both use it")
    assert one.say("retry-after 0 6") == "told"
    crowd.wait_until(lambda: crowd.goes_on_without(0, 1, for_s=2.0), "key 1 goes on for 2 s without key 0")
    quiet_from = crowd.began()[0][-1]
    crowd.wait_until(lambda: crowd.began()[0][-1] > quiet_from, "key 0 goes on")
    resumed = min(at for at in crowd.began()[0] if at > quiet_from)
    assert len([at for at in crowd.began()[1] if quiet_from < at < resumed]) > 20


def test_one_key_can_be_paused_from_outside(crowd: Crowd, ledger_url: str) -> None:
    client = redis.Redis.from_url(ledger_url)
    limit = {"name": "host", "concurrency": 2}
    users = [crowd.start(limit, keys=2, items=20_000, work_s=0.005) for _ in range(2)]
    crowd.wait_until(lambda: all(user.began(0) for user in users), "both use it")
    pause(client, "host", 60, key="key-0")
    crowd.wait_until(lambda: crowd.goes_on_without(0, 1, for_s=1.0), "key 1 goes on for a second without key 0")
    quiet_from = crowd.began()[0][-1]
    pause(client, "host", 0, key="key-0")
    crowd.wait_until(lambda: crowd.began()[0][-1] > quiet_from, "key 0 goes on, a minute early")
    client.close()


@pytest.mark.parametrize("limit", [{"name": "host", "concurrency": 2}, {"name": "pace", "rate": 200, "burst": 5}])
def test_thousands_of_keys_leave_nothing_behind(crowd: Crowd, ledger_url: str, limit: dict[str, Any]) -> None:
    """5,000 keys in each of two processes, twice: the second time takes no more memory, and then no key is left anywhere."""
    client = redis.Redis.from_url(ledger_url)
    users = [crowd.start(limit, keys=5000, items=2) for _ in range(2)]
    assert [user.say("done") for user in users] == ["10000"] * 2
    crowd.wait_until(
        lambda: all(user.say("memory").split()[1] == "0" for user in users), "the executors forget the keys"
    )
    crowd.wait_until(lambda: not client.keys("*:key:*"), "the server forgets the keys")
    before = [int(user.say("memory").split()[0]) for user in users]
    for user in users:
        user.say("more")
    assert [user.say("done") for user in users] == ["10000"] * 2
    after = [int(user.say("memory").split()[0]) for user in users]
    assert all(late < early + 8_000_000 for early, late in zip(before, after, strict=True))
    crowd.wait_until(lambda: not client.keys("*:key:*"), "the server forgets the keys again")
    assert max(crowd.peaks().values()) <= (2 if "concurrency" in limit else 10_000)
    left_ms = [client.pttl(key) for key in client.keys("tg:*")]
    assert all(0 < ms <= 3_700_000 for ms in left_ms if ms != -2)  # -2: it went between the two calls
    client.close()
