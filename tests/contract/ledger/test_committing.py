"""commit: what is written, what is checked, and the next batch in the same call."""

from __future__ import annotations

import pytest

from tidegate.errors import LedgerError
from tidegate.ledger.port import Lease, Nothing, Settlement
from tidegate.model.outcome import JobState, Outcome


def test_the_last_commit_ends_the_job_and_leaves_only_what_people_read(desk):
    job_id = desk.job(sizes=(2, 2))
    assert not desk.finish(desk.claim(job_id)).job_done
    assert desk.finish(desk.claim(job_id)).job_done
    progress = desk.ledger.progress(job_id)
    assert (progress.state, progress.done, progress.pending, progress.batches_done) == (JobState.DONE, 4, 0, 2)
    assert set(desk.dump(job_id)) == {"meta", "results", "seen", "events"}


def test_counts_of_every_outcome_are_added_up(desk):
    job_id = desk.job(sizes=(15,))
    counts = {outcome: number for number, outcome in enumerate(Outcome, 1)}
    lease = desk.claim(job_id)
    desk.commit(lease, Settlement(settled=15, outcomes=counts, executions=20, retries=5))
    progress = desk.ledger.progress(job_id)
    assert progress.outcomes == counts
    assert (progress.attempts, progress.retries) == (20, 5)


def test_commit_and_claim_next_is_one_call(desk, settle):
    job_id = desk.job(sizes=(1,) * 3)
    ticket = desk.tickets[job_id][0]
    lease = desk.claim(job_id)
    seen = []
    while isinstance(lease, Lease):
        seen.append(lease.batch)
        answer = desk.commit(lease, settle.whole(lease), claim_next=True, ticket=ticket)
        lease = answer.next
    assert seen == [0, 1, 2]
    assert lease is Nothing.EMPTY
    assert answer.job_done


def test_a_commit_that_claims_with_a_retired_ticket_is_still_a_commit(desk, settle):
    job_id = desk.job(sizes=(1, 1))
    lease = desk.claim(job_id)
    answer = desk.commit(lease, settle.whole(lease), claim_next=True, ticket=77)
    assert (answer.next, answer.batch_done) == (Nothing.RETIRED, True)


def test_a_commit_that_asks_for_nothing_more_gets_nothing_more(desk):
    assert desk.finish(desk.claim(desk.job())).next is None


def bad(**changes):
    return Settlement(**{"settled": 10, "outcomes": {Outcome.SUCCEEDED: 10}, **changes})


@pytest.mark.parametrize(
    ("settlement", "why"),
    [
        (bad(outcomes={Outcome.SUCCEEDED: 9}), "add up"),
        (bad(outcomes={Outcome.SUCCEEDED: 11, Outcome.FAILED: -1}), "not a count"),
        (bad(outcomes={Outcome.SUCCEEDED: 9.5, Outcome.FAILED: 0.5}), "not a count"),
        (bad(executions=-1), "not a count"),
        (bad(retries=1.5), "not a count"),
        (bad(delay_ms=2**60), "not a count"),
        (bad(errors={"E": "many"}), "counts by name"),
        (bad(errors={"E": float("nan")}), "counts by name"),
        (bad(traces={"E": 1}), "texts by fingerprint"),
        (bad(settled=9, outcomes={Outcome.SUCCEEDED: 9}), "bits are missing"),
        (bad(settled=11, outcomes={Outcome.SUCCEEDED: 11}), "bits are missing"),
        (bad(settled=-1, outcomes={Outcome.SUCCEEDED: -1}), "not a count"),
        (bad(bits=b"\xff"), "bits must be"),
        (bad(bits=b"\xff\x03\x00"), "bits must be"),
        (bad(bits=b"\xff\x07"), "beyond the batch"),
        (bad(bits=b"\xff\x01"), "bits do not add up"),
        (bad(attempts=b"\x01"), "byte per item"),
        (bad(crashes=b"\x01" * 11), "byte per item"),
        (bad(stats={f"running:{i}": 1 for i in range(6000)}), "too many"),
    ],
)
def test_a_settlement_that_does_not_add_up_writes_nothing(desk, settlement, why):
    job_id = desk.job(sizes=(10, 10))
    lease = desk.claim(job_id)
    before = desk.dump(job_id)
    with pytest.raises(LedgerError, match=why):
        desk.try_commit(lease, settlement, claim_next=True, ticket=desk.tickets[job_id][0])
    assert desk.dump(job_id) == before
    desk.finish(lease)


def test_histogram_fields_that_are_no_counts_are_left_out_and_stop_nobody(desk):
    job_id = desk.job(sizes=(1,) * 40)
    hostile = [{"running:1": value, "running:2": 1} for value in (1.5, -1, None, "x", float("inf"), 2**60, True)]
    for number in range(40):
        stats = ([*hostile, [1], {3: 4}, "text"])[number % 10]
        one = Settlement(settled=1, outcomes={Outcome.SUCCEEDED: 1}, executions=1, stats=stats)
        desk.commit(desk.claim(job_id), one)
        found = desk.ledger.stats(job_id)
        assert found.get("running:2", 0) == sum(n % 10 < 7 for n in range(number + 1))
    assert desk.ledger.progress(job_id).done == 40


def test_a_sum_that_leaves_64_bits_does_not_stop_a_commit(desk):
    job_id = desk.job(sizes=(1,) * 70)
    desk.client.hset(f"tg:{{{job_id}}}:stats", "running_sum_ns", 2**63 - 1)
    for _ in range(70):
        one = Settlement(
            settled=1, outcomes={Outcome.SUCCEEDED: 1}, executions=1, stats={"running_sum_ns": 1, "running:1": 1}
        )
        desk.commit(desk.claim(job_id), one)
    assert desk.ledger.progress(job_id).done == 70
    assert desk.ledger.stats(job_id)["running:1"] == 70


def test_results_are_kept_only_if_the_job_keeps_them(desk):
    job_id = desk.job(sizes=(1,), keep_results=False)
    desk.finish(desk.claim(job_id))
    assert "results" not in desk.dump(job_id)


def test_histogram_fields_add_up_and_extremes_stay_extreme(desk):
    job_id = desk.job(sizes=(1,) * 70)
    ticket = desk.tickets[job_id][0]
    lease, number = desk.claim(job_id), 0
    while isinstance(lease, Lease):
        number += 1
        stats = {
            "running:5": 2, f"running:{number % 7 + 100}": 1, "running_sum_ns": 10**15, "running_count": 3,
            "running_min_ns": 1000 - number, "running_max_ns": 5000 + number, "ready_min_ns": 100 + number,
        }  # fmt: skip
        lease = desk.commit(
            lease,
            Settlement(settled=1, outcomes={Outcome.SUCCEEDED: 1}, executions=1, stats=stats),
            claim_next=True,
            ticket=ticket,
        ).next
        found = desk.ledger.stats(job_id)
        assert (found["running:5"], found["running_count"], found["running_sum_ns"]) == (
            2 * number,
            3 * number,
            10**15 * number,
        )
        assert (found["running_min_ns"], found["running_max_ns"]) == (1000 - number, 5000 + number)
        assert found["ready_min_ns"] == 101
    assert number == 70
    assert sum(found[f"running:{i}"] for i in range(100, 107)) == 70
    assert "recent" in desk.dump(job_id)
    assert "stats" in desk.dump(job_id)


def test_failures_traces_and_error_counts_are_kept(desk):
    job_id = desk.job(sizes=(1, 1))
    for number in range(2):
        lease = desk.claim(job_id)
        failed = Settlement(
            settled=1, outcomes={Outcome.FAILED: 1}, executions=1, failures=b"block %d" % number,
            traces={"abc": f"trace {number}"}, errors={"ValueError": 1},
        )  # fmt: skip
        desk.commit(lease, failed)
    assert desk.ledger.traces(job_id) == {"abc": "trace 0"}
    assert desk.ledger.errors(job_id) == {"ValueError": 2}
    assert [fields[b"d"] for _, fields in desk.dump(job_id)["dead"]] == [b"block 0", b"block 1"]


def test_hostile_traces_and_error_names_take_bounded_space(desk):
    job_id = desk.job(sizes=(1, 1))
    for number in range(2):
        lease = desk.claim(job_id)
        names = [f"{number}-{i}" for i in range(900)]
        hostile = Settlement(
            settled=1, outcomes={Outcome.FAILED: 1}, executions=1, failures=b"x",
            traces={**dict.fromkeys(names, "t"), f"{number}" * 500: "y" * 100_000},
            errors={**dict.fromkeys(names, 1), f"{number}" * 500: 7},
        )  # fmt: skip
        desk.commit(lease, hostile)
    traces, errors = desk.ledger.traces(job_id), desk.ledger.errors(job_id)
    assert len(traces) == 1000
    assert max(map(len, traces.values())) <= 16_384
    assert len(errors) <= 1001
    assert errors["other"] > 0
    assert sum(errors.values()) == 2 * (900 + 7)
    assert max(map(len, errors)) <= 200
