"""Limits by key across real worker processes. The witness is a file that the items themselves write, outside of Redis."""

from __future__ import annotations

import time
from collections import Counter, defaultdict

import pytest
from worker_site import Site, wait_until

from tidegate.embedded import EmbeddedServer
from tidegate.limits import keys
from tidegate.telemetry.stream import TelemetryReader


class Visits:
    """Who was where and when, by the account of the items. A killed process left its hosts when it was killed."""

    def __init__(self, site: Site, killed: dict[int, int] | None = None) -> None:
        path = site.witness.with_name(site.witness.name + ".visits")
        lines = path.read_text().splitlines() if path.exists() else []
        self.events = []
        inside: Counter[tuple[str, int]] = Counter()
        for line in lines:
            sign, host, at, process = line.split()
            step = 1 if sign == "+" else -1
            self.events.append((int(at), step, host))
            inside[host, int(process)] += step
        for (host, process), count in inside.items():
            if count:
                self.events += [(killed[process], -1, host)] * count if killed and process in killed else []
        self.events.sort()

    def peaks(self) -> dict[str, int]:
        """The most that were at each host at once."""
        now, most = Counter[str](), Counter[str]()
        for _, step, host in self.events:
            now[host] += step
            most[host] = max(most[host], now[host])
        return dict(most)

    def began(self) -> dict[str, list[int]]:
        found = defaultdict(list)
        for at, step, host in self.events:
            if step > 0:
                found[host].append(at)
        return found


def addresses(hosts: int, each: int) -> list[str]:
    return [f"h{number % hosts}/{number}" for number in range(hosts * each)]


def test_no_host_is_visited_by_more_than_its_limit_from_two_processes_and_two_tasks(site: Site) -> None:
    """Two tasks share the limit by its name; the bound holds for each host over everything that runs."""
    site.start(processes=2).ready()
    one = site.task("visit").map(addresses(6, 30), batch_size=20)
    other = site.task("visit_too").map(addresses(6, 30), batch_size=20)
    one.wait(timeout=60)
    other.wait(timeout=60)
    assert site.outcomes(one) == site.outcomes(other) == {"succeeded": 180}
    peaks = Visits(site).peaks()
    assert set(peaks.values()) == {2}, "the limit was passed, or never used up"
    assert len(peaks) == 6


def test_a_killed_process_breaks_no_bound_and_its_permits_come_back(site: Site) -> None:
    tree = site.start(processes=2, lease_s=3).ready()
    job = site.task("visit").starmap([(address, 0.05) for address in addresses(4, 60)], batch_size=10)
    wait_until(lambda: len(Visits(site).events) > 40, "visits")
    killed = {}
    for child in tree.children()[:1]:
        child.kill()
        child.wait()
        killed[child.pid] = time.monotonic_ns()
    job.wait(timeout=90)
    assert site.outcomes(job) == {"succeeded": 240}
    assert max(Visits(site, killed).peaks().values()) == 2


def test_no_window_of_a_host_is_over_its_rate(site: Site) -> None:
    """An item notes its own start, which is after the executor's, by more when the machine is busy: hence the leeway in a
    window. Limits that did not know of each other would be over it by nine starts; tests of slots allow none."""
    site.start(processes=2).ready()
    job = site.task("pace").map(addresses(5, 20), batch_size=10)
    job.wait(timeout=60)
    began = Visits(site).began()
    assert [len(times) for times in began.values()] == [20] * 5
    for times in began.values():
        for first, start in enumerate(times):
            for last in range(first + 1, len(times)):
                assert last - first + 1 <= 10 * ((times[last] - start) / 1e9 + 0.3) + 2
    span_s = max(times[-1] - times[0] for times in began.values()) / 1e9
    assert span_s < 10, "hosts waited for each other"


def test_one_host_that_is_held_up_holds_up_no_other_and_its_items_go_back_to_the_ledger(site: Site) -> None:
    """One item a minute may start: the rest of the batch is handed back as delayed work, its other items are committed."""
    tree = site.start(processes=1, slots=1).ready()
    job = site.task("slow").map(["slow/1", "slow/2", "slow/3", *(f"h{n}/" for n in range(30))], batch_size=33)
    wait_until(lambda: site.outcomes(job).get("succeeded") == 31, "every host was visited once")
    # The only slot is free again: another job passes while two items wait for their minute.
    other = site.task("double").map(range(10))
    other.wait(timeout=50)
    assert site.outcomes(job) == {"succeeded": 31}
    assert len(Visits(site).began()["slow"]) == 1
    assert tree.process.poll() is None


def test_a_retry_after_pauses_its_key_everywhere_and_no_other_key(site: Site) -> None:
    site.start(processes=2).ready()
    site.witness.with_name(site.witness.name + ".told-h0").touch()
    job = site.task("visit").map(addresses(2, 60), batch_size=10)
    job.wait(timeout=60)
    began = Visits(site).began()
    events = Visits(site).events
    assert site.outcomes(job) == {"succeeded": 120}
    # The longest time in which nothing began at h0 is the pause; the other host was busy during it.
    gaps = [(later - earlier, earlier, later) for earlier, later in zip(began["h0"], began["h0"][1:], strict=False)]
    length, told, resumed = max(gaps)
    assert length > 2_000_000_000  # of 5 s: another process may hear of it half a second later, or when it gets to run
    assert [at for at, step, host in events if step > 0 and host == "h1" and told < at < resumed]


def test_an_item_whose_key_fails_ends_with_a_typed_error_and_one_without_a_key_is_not_bound(site: Site) -> None:
    site.start().ready()
    job = site.task("visit").map(["odd:1", "h/1", "/2", "/3"], batch_size=4)
    job.wait(timeout=60)
    assert site.outcomes(job) == {"succeeded": 3, "failed": 1}
    (failure,) = job.failures()
    assert failure.error_type == "tidegate.errors.LimitKeyError"
    assert "ValueError: odd:1 is odd" in failure.message
    assert failure.attempts == 0


def test_a_limit_of_the_process_needs_no_server_and_holds_in_each_process(site: Site, valkey: EmbeddedServer) -> None:
    site.start().ready()
    job = site.task("visit_here").map(addresses(3, 20), batch_size=10)
    job.wait(timeout=60)
    assert set(Visits(site).peaks().values()) == {1}
    client = valkey.client()
    assert not client.exists(keys.limit_key("here"))
    client.close()


@pytest.mark.parametrize("task", ["visit", "pace"])
def test_what_waits_for_its_key_is_reported_under_the_name_of_the_limit(
    site: Site, valkey: EmbeddedServer, task: str
) -> None:
    site.start(telemetry_s=0.1).ready()
    job = site.task(task).starmap([("h/1", 0.2)] * 60, batch_size=60)
    name = {"visit": "host", "pace": "pace"}[task]
    client = valkey.client()
    reader = TelemetryReader(client)

    def reported() -> bool:
        lanes = [lane for _, record in reader.read(count=1000)[0] for lane in record.lanes]
        return any(lane.limits.get(name, 0) > 10 and lane.waiting_limited > 10 for lane in lanes)

    wait_until(reported, "a record names the limit")
    job.cancel()
    client.close()
