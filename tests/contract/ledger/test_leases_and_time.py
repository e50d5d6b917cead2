"""renew and sweep: leases end by the server's clock alone, whatever that clock does."""

from __future__ import annotations

import pytest

from tidegate.ledger.port import Lease, Nothing, Settlement
from tidegate.model.job import new_job_id


def test_a_lease_that_is_renewed_does_not_expire(desk):
    job_id = desk.job()
    lease = desk.claim(job_id)
    for _ in range(5):
        desk.skew(9_000)
        assert desk.ledger.renew([lease], lease_ms=10_000) == [True]
        assert desk.sweep(job_id).expired_leases == 0


def test_an_expired_lease_goes_to_another_holder_and_the_first_can_write_nothing(desk, settle):
    job_id = desk.job(sizes=(10,))
    lease = desk.claim(job_id)
    desk.commit(lease, settle.part(lease, [3]))
    desk.skew(10_001)
    swept = desk.sweep(job_id)
    assert (swept.expired_leases, desk.ledger.progress(job_id).lost_leases) == (1, 1)
    second = desk.claim(job_id, "w2/0")
    assert (second.batch, second.done_bits) == (0, b"\x08\x00")
    before = desk.without_counts_of_refusals(job_id)
    assert desk.ledger.renew([lease], lease_ms=10_000) == [False]
    assert desk.try_commit(lease, settle.part(lease, [4])).reason == "token"
    assert desk.without_counts_of_refusals(job_id) == before
    assert desk.commit(second, settle.part(second, [p for p in range(10) if p != 3])).job_done


def test_a_lease_not_swept_yet_is_still_good_after_its_deadline(desk):
    job_id = desk.job()
    lease = desk.claim(job_id)
    desk.skew(60_000)
    assert desk.ledger.renew([lease], lease_ms=10_000) == [True]
    assert desk.sweep(job_id).expired_leases == 0


def test_leases_of_several_jobs_are_renewed_together_and_answered_in_order(desk):
    jobs = [desk.job(sizes=(1, 1)), desk.job(sizes=(1, 1))]
    leases = [desk.claim(jobs[0]), desk.claim(jobs[1]), desk.claim(jobs[0], "b")]
    desk.finish(leases[1])
    desk.ledger.cancel(jobs[0])
    assert desk.ledger.renew(leases, lease_ms=1000) == [None, False, None]
    for lease in (leases[0], leases[2]):
        desk.finish(lease)


def test_renewing_in_a_job_that_is_gone_is_lost(desk):
    ghost = Lease(**{**_fields(desk.claim(desk.job())), "job_id": new_job_id()})
    assert desk.ledger.renew([ghost], lease_ms=1000) == [False]


def _fields(lease):
    return {name: getattr(lease, name) for name in Lease.__dataclass_fields__}


def test_a_sweep_pages_past_leases_that_are_well(desk):
    job_id = desk.job(sizes=(1,) * 30)
    leases = [desk.claim(job_id, f"w/{i}") for i in range(30)]
    desk.skew(5_000)
    desk.ledger.renew(leases[:25], lease_ms=10_000)
    desk.skew(6_000)
    assert desk.sweep(job_id, limit=3).expired_leases == 3
    assert desk.sweep(job_id, limit=3).expired_leases == 2
    assert desk.sweep(job_id, limit=3).expired_leases == 0


@pytest.mark.parametrize("jump_ms", [3_600_000, 86_400_000])
def test_a_clock_that_jumps_ahead_costs_leases_but_no_items(desk, settle, jump_ms):
    job_id = desk.job(sizes=(2, 2))
    lease = desk.claim(job_id)
    desk.skew(jump_ms)
    assert desk.sweep(job_id).expired_leases == 1
    assert desk.try_commit(lease, settle.whole(lease)).reason == "token"
    for _ in range(2):
        desk.finish(desk.claim(job_id, "w2"))
    assert desk.ledger.progress(job_id).done == 4


def test_a_clock_that_jumps_back_does_not_make_leases_eternal(desk):
    job_id = desk.job(sizes=(2, 2))
    desk.claim(job_id)
    delayed = desk.claim(job_id, "w2")
    desk.commit(delayed, Settlement(settled=0, hand_back=True, delay_ms=30_000))
    desk.skew(-3_600_000)
    desk.sweep(job_id)
    desk.skew(10_001)
    assert desk.sweep(job_id).expired_leases == 1
    desk.skew(20_000)
    assert desk.sweep(job_id).due_batches == 1


def test_a_lease_granted_before_the_clock_jumped_back_can_be_renewed_and_committed(desk):
    job_id = desk.job(sizes=(2,))
    lease = desk.claim(job_id)
    desk.skew(-3_600_000)
    assert desk.ledger.renew([lease], lease_ms=10_000) == [True]
    assert desk.finish(lease).job_done


def test_lost_tickets_are_replaced_when_batches_wait_and_slots_are_free(desk):
    job_id = desk.job(sizes=(1,) * 10)
    old = desk.tickets[job_id]
    assert desk.sweep(job_id, slots=4).tickets == ()
    desk.skew(5_001)
    fresh = desk.sweep(job_id, slots=4).tickets
    assert len(fresh) == 4 - (len(old) - 4)
    assert not set(fresh) & set(old)


def test_a_replaced_ticket_that_turns_up_late_is_worth_nothing(desk):
    job_id = desk.job(sizes=(1,) * 3)
    old = desk.tickets[job_id]
    desk.skew(5_001)
    fresh = desk.sweep(job_id, slots=8).tickets
    assert len(fresh) == 3
    assert desk.try_claim(job_id, ticket=old[0]) is Nothing.RETIRED
    assert isinstance(desk.try_claim(job_id, ticket=fresh[0]), Lease)


def test_tickets_are_not_replaced_while_every_slot_is_busy_with_the_job(desk):
    job_id = desk.job(sizes=(1,) * 10)
    for number in range(4):
        desk.claim(job_id, f"w/{number}")
    desk.skew(9_000)
    assert desk.sweep(job_id, slots=4).tickets == ()


def test_patience_grows_with_each_replacement_so_that_a_long_queue_is_not_flooded(desk):
    job_id = desk.job(sizes=(1,) * 4)
    sent = 0
    for _ in range(600):
        desk.skew(1_000)
        sent += len(desk.sweep(job_id, slots=4).tickets)
    assert 4 < sent <= 4 * 7


def test_patience_comes_back_when_tickets_come_round_quickly(desk):
    job_id = desk.job(sizes=(1,) * 4)
    for _ in range(60):
        desk.skew(1_000)
        fresh = desk.sweep(job_id, slots=4).tickets or desk.tickets[job_id]
        desk.tickets[job_id] = fresh
    assert int(desk.dump(job_id)["meta"][b"stall_k"]) >= 3
    for _ in range(8):
        desk.skew(500)
        assert desk.ledger.touch_ticket(job_id, fresh[0])
    assert int(desk.dump(job_id)["meta"][b"stall_k"]) == 0


def test_new_workers_widen_the_window_at_the_next_sweep(desk):
    job_id = desk.job(sizes=(1,) * 50)
    have = len(desk.tickets[job_id])
    assert len(desk.sweep(job_id, slots=20).tickets) == 20 - have


def test_a_sweep_of_an_ended_or_unknown_job_says_so(desk):
    assert desk.sweep(desk.job(sizes=())).finished
    assert desk.sweep(new_job_id()).gone


def test_if_everything_is_lost_but_the_ledger_a_sweep_brings_the_job_to_its_end(desk):
    job_id = desk.job(sizes=(3,) * 5)
    for number in range(5):
        desk.claim(job_id, f"dead/{number}")
    desk.skew(60_000)
    swept = desk.sweep(job_id)
    assert swept.expired_leases == 5
    assert swept.queue == "tidegate"
    while not desk.ledger.progress(job_id).ended:
        desk.finish(desk.claim(job_id, "alive"))
    assert desk.ledger.progress(job_id).done == 15
