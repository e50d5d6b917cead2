"""A rate limit used by several real processes: no window of any length sees more than rate * window + burst."""

from __future__ import annotations

from typing import Any

import pytest


def worst_excess(times_ns: list[int], rate: float, burst: int) -> float:
    """By how much the worst of all windows is over its bound (negative: below). Every pair of uses is a window.

    Uses i..j lie in a window of length t[j] - t[i]; the bound says j - i + 1 <= rate * (t[j] - t[i]) + burst. With
    x[k] = k - rate * t[k] that is x[j] - x[i] + 1 <= burst: the lowest x so far decides, one pass sees all pairs.
    """
    worst, lowest = -float("inf"), float("inf")
    for k, at in enumerate(times_ns):
        x = k - rate * (at - times_ns[0]) / 1e9
        lowest = min(lowest, x)
        worst = max(worst, x - lowest + 1 - burst)
    return worst


def test_the_check_itself_finds_a_window_that_is_too_full() -> None:
    ten_ms = 10_000_000
    assert worst_excess([i * ten_ms for i in range(50)], rate=100, burst=1) <= 1e-6
    assert worst_excess([*[i * ten_ms for i in range(50)], 495_000_000], rate=100, burst=1) > 0.4


LIMITS = [
    pytest.param({"name": "fast", "rate": 500, "burst": 50}, 900, id="blocks"),
    pytest.param({"name": "strict", "rate": 50, "burst": 1}, 60, id="a-burst-of-one"),
    pytest.param({"name": "slow", "rate": 4, "burst": 2}, 8, id="fewer-slots-than-processes"),
    pytest.param({"name": "bank", "rate": 20, "burst": 60}, 100, id="a-large-burst"),
]


@pytest.mark.parametrize(("limit", "uses"), LIMITS)
def test_no_window_of_any_length_is_over_the_bound(users: Any, limit: dict[str, Any], uses: int) -> None:
    for _ in range(3):
        users.start(limit)
    users.wait_until(lambda: len(users.began()) >= uses, f"{uses} uses")
    times = users.began()
    assert worst_excess(times, limit["rate"], limit["burst"]) <= 1e-6
    assert all(user.stop() == 0 for user in users.all)


def test_killed_processes_and_new_ones_break_no_bound_and_the_rate_goes_on(users: Any) -> None:
    limit = {"name": "fast", "rate": 400, "burst": 20}
    for round_number in range(1, 4):
        users.start(limit)
        users.start(limit)
        users.wait_until(lambda n=round_number: len(users.began()) >= n * 200, f"round {round_number}")
        users.all[-1].kill()
    seen = len(users.began())
    users.wait_until(lambda: len(users.began()) > seen + 100, "uses after the last kill")
    assert worst_excess(users.began(), limit["rate"], limit["burst"]) <= 1e-6


def test_every_process_gets_some_of_a_rate_that_is_wanted_by_all(users: Any) -> None:
    limit = {"name": "slow", "rate": 20, "burst": 2}
    crowd = [users.start(limit) for _ in range(3)]
    users.wait_until(lambda: all(len(user.began()) >= 5 for user in crowd), "five uses by each")


def _reached(users: Any, user: Any) -> float:
    """Its uses per second, over two hundred of them."""
    first, start = len(user.began()), user.began()[-1]
    users.wait_until(lambda: len(user.began()) >= first + 200, "two hundred uses")
    times = [at for at in user.began() if at > start]
    return len(times) / ((times[-1] - start) / 1e9)


def test_a_process_that_is_slow_leaves_the_rate_to_the_others(users: Any) -> None:
    limit = {"name": "mixed", "rate": 200, "burst": 20}
    slow = users.start(limit, work_s=0.2)
    users.wait_until(lambda: len(slow.began()) > 3, "the slow one has begun")
    fast = users.start(limit)
    users.wait_until(lambda: len(fast.began()) > 10, "the fast one has begun")
    beside = _reached(users, fast)
    slow.kill()
    alone = _reached(users, fast)
    assert beside > 0.35 * alone  # one slow process may not take most of it; on a busy machine both are less


def test_a_retry_after_stops_every_process_and_only_for_that_long(users: Any) -> None:
    limit = {"name": "api", "rate": 200, "burst": 20}
    one, other = users.start(limit), users.start(limit)
    users.wait_until(lambda: len(one.began()) > 20 and len(other.began()) > 20, "both use it")
    assert one.say("retry-after 5") == "told"
    told_ns = max(one.began())
    users.wait_until(lambda: min(one.began()[-1], other.began()[-1]) > told_ns + 4_500_000_000, "both go on")
    after = sorted(at for at in users.began() if at > told_ns)
    pause_end = told_ns + 4_900_000_000
    # The one that was told stops at once, the other with its next request, within half a second (and some for the machine).
    assert not [at for at in one.began() if told_ns < at < pause_end]
    assert not [at for at in other.began() if told_ns + 3_000_000_000 < at < pause_end]
    resumed = [at for at in after if at >= pause_end]
    assert worst_excess(resumed, 200, 20) <= 1e-6


def test_while_the_server_is_away_uses_stop_and_then_go_on(own_server: Any, users: Any) -> None:
    users.url = own_server.url
    limit = {"name": "api", "rate": 200, "burst": 5}
    users.start(limit)
    users.wait_until(lambda: len(users.began()) > 50, "uses before")
    own_server.kill()
    before = users.began()[-1]
    own_server.start()
    users.wait_until(lambda: users.began()[-1] > before + 500_000_000, "uses after")
    assert (
        worst_excess(users.began(), 200, 5) <= 1e-6 + 5
    )  # the unsynced second of the file may be forgotten: one burst more


def test_newer_code_with_another_rate_changes_it_for_all(users: Any) -> None:
    old = users.start({"name": "api", "rate": 20, "burst": 1})
    users.wait_until(lambda: len(old.began()) > 3, "uses by the old rate")
    new = users.start({"name": "api", "rate": 400, "burst": 40})
    users.wait_until(lambda: len(new.began()) > 3, "uses by the new rate")
    new.stop()
    seen, since = len(old.began()), old.began()[-1]
    users.wait_until(lambda: len(old.began()) > seen + 200, "uses of the old process by the new rate")
    assert 200 / ((old.began()[-1] - since) / 1e9) > 30


def test_the_executor_keeps_to_the_slots_it_is_given(users: Any) -> None:
    """An item notes its own start, which is after the executor's, by more when the machine is busy; so a window may look
    fuller. Two processes that did not know of each other would be over it by ninety starts."""
    limit = {"name": "real", "rate": 200, "burst": 20}
    crowd = [users.start(limit, engine="host") for _ in range(2)]
    users.wait_until(lambda: all(len(user.began()) > 100 for user in crowd), "a hundred starts by each")
    times = users.began()
    late_s = 0.25
    assert worst_excess(times, 200, 20) <= 200 * late_s
    # Over all of it the lateness does not matter: as many starts as the rate allows, and not far fewer.
    span_s = (times[-1] - times[0]) / 1e9
    assert 0.1 * 200 * span_s < len(times) <= 200 * (span_s + late_s) + 20
