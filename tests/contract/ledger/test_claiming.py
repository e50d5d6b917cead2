"""claim and tickets: one batch to one holder, and tickets that decide nothing."""

from __future__ import annotations

import pytest

from tidegate.ledger.port import Lease, Nothing
from tidegate.model.job import new_job_id


def test_each_claim_gets_another_batch_and_a_token_never_seen_before(desk):
    job_id = desk.job(sizes=(1,) * 8)
    leases = [desk.claim(job_id, f"w/{i}") for i in range(8)]
    assert [lease.batch for lease in leases] == list(range(8))
    assert len({lease.token.epoch for lease in leases}) == 8
    assert len({lease.token.nonce for lease in leases}) == 8


def test_the_nonce_of_the_request_is_the_secret_of_the_token(desk):
    job_id = desk.job()
    assert desk.try_claim(job_id, nonce="mysecret").token.nonce == "mysecret"


@pytest.mark.parametrize("nonce", ["", "a:b", "a|b", "a b"])
def test_a_nonce_that_could_break_a_record_is_refused(desk, nonce):
    with pytest.raises(ValueError, match="letters and digits"):
        desk.ledger.claim(desk.job(), ticket=1, claimer="w", nonce=nonce, lease_ms=1000)


def test_a_claimer_may_have_any_name(desk):
    job_id = desk.job()
    lease = desk.claim(job_id, "host:1|slot 2\n%d:é")
    assert desk.finish(lease).batch_done


def test_a_job_with_nothing_ready_retires_the_ticket(desk):
    job_id = desk.job(sizes=(1,))
    desk.claim(job_id)
    assert desk.try_claim(job_id, "other") is Nothing.EMPTY
    assert desk.try_claim(job_id, "other") is Nothing.RETIRED
    assert "tickets" not in desk.dump(job_id)


def test_an_unknown_or_ended_job_is_gone(desk):
    assert desk.try_claim(desk.job(sizes=()), ticket=1) is Nothing.GONE
    assert desk.ledger.claim(new_job_id(), ticket=1, claimer="w", nonce="n", lease_ms=1) is Nothing.GONE


@pytest.mark.parametrize("ticket", [0, -1, 99, 2**60])
def test_a_ticket_that_the_ledger_did_not_give_out_gets_nothing_and_writes_nothing(desk, ticket):
    job_id = desk.job()
    before = desk.dump(job_id)
    assert desk.try_claim(job_id, ticket=ticket) is Nothing.RETIRED
    assert desk.dump(job_id) == before


def test_a_window_holds_no_more_tickets_than_batches_or_slots(desk):
    assert len(desk.tickets[desk.job(sizes=(1,) * 3)]) == 3
    desk.ledger.heartbeat("w1", slots=5, ttl_ms=60_000, facts={})
    assert len(desk.tickets[desk.job(sizes=(1,) * 20)]) == 5


def test_more_chunks_bring_tickets_only_up_to_the_window(desk):
    desk.ledger.heartbeat("w1", slots=5, ttl_ms=60_000, facts={})
    job_id = desk.job(sizes=(1, 1), sealed=False)
    assert desk.tickets[job_id] == (1, 2)
    assert desk.append(job_id, 1, (1,) * 10).tickets == (3, 4, 5)
    assert desk.append(job_id, 2, (1,) * 10).tickets == ()


def test_one_ticket_repeated_ten_times_costs_nothing(desk):
    job_id = desk.job(sizes=(1, 1))
    ticket = desk.tickets[job_id][0]
    answers = [desk.try_claim(job_id, f"w/{i}", ticket=ticket) for i in range(10)]
    assert [type(answer) for answer in answers[:2]] == [Lease, Lease]
    assert answers[2:] == [Nothing.EMPTY] + [Nothing.RETIRED] * 7
    for lease in answers[:2]:
        desk.finish(lease)
    assert desk.ledger.progress(job_id).done == 2


def test_a_ticket_goes_back_to_the_tail_only_while_it_is_in_the_window(desk):
    job_id = desk.job(sizes=(1,))
    ticket = desk.tickets[job_id][0]
    assert desk.ledger.touch_ticket(job_id, ticket)
    assert not desk.ledger.touch_ticket(job_id, ticket + 1)
    desk.finish(desk.claim(job_id))
    assert not desk.ledger.touch_ticket(job_id, ticket)
    assert not desk.ledger.touch_ticket(new_job_id(), 1)


def test_a_claim_says_how_long_the_batch_was_ready(desk):
    job_id = desk.job()
    desk.skew(1234)
    assert 1234 <= desk.claim(job_id).ready_ms < 60_000


def test_a_batch_whose_payload_was_destroyed_ends_as_failed_in_plain_sight(desk):
    job_id = desk.job(sizes=(4, 3))
    desk.client.hdel(f"tg:{{{job_id}}}:payloads", 0)
    lease = desk.claim(job_id)
    assert lease.batch == 1
    assert desk.ledger.errors(job_id) == {"PayloadLost": 4}
    assert desk.finish(lease).job_done
    assert desk.ledger.progress(job_id).outcomes["failed"] == 4
