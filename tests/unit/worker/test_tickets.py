"""What is a ticket and what is not, and what of a message survives."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.model.job import new_job_id
from tidegate.settings import Settings
from tidegate.worker.celery_app import build, kombu_url, prepare_worker
from tidegate.worker.tickets import BadTicket, canonical_message, parse_ticket, ticket_headers


def _raw(arguments: Any, **extra: Any) -> bytes:
    body = base64.b64encode(json.dumps([arguments, {}, {"chain": ["evil"]}]).encode()).decode()
    headers = {**ticket_headers(), "eta": "2199-01-01", "timelimit": [1, 1], "compression": None, **extra}
    properties = {"body_encoding": "base64", "delivery_tag": "their-own", "reply_to": "elsewhere"}
    return json.dumps(
        {"body": body, "content-type": "application/json", "headers": headers, "properties": properties}
    ).encode()


def test_only_a_job_id_and_a_number_make_a_ticket() -> None:
    job_id = new_job_id()
    assert parse_ticket([job_id, 3]) == (job_id, 3)
    for bad in (
        [job_id],
        [job_id, "3"],
        [job_id, True],
        [job_id, -1],
        [job_id, 2**53],
        ["a b", 1],
        [None, 1],
        "no",
        None,
        {},
    ):
        with pytest.raises(BadTicket):
            parse_ticket(bad)


def test_nothing_but_the_two_values_survives_of_a_message() -> None:
    job_id = new_job_id()
    message = canonical_message(_raw([job_id, 5]), "q")
    body = json.loads(base64.b64decode(message["body"]))
    assert body[0] == [job_id, 5]
    assert not any(body[2].values())
    assert "eta" not in message["headers"]
    assert message["properties"]["delivery_tag"] != "their-own"
    assert "reply_to" not in message["properties"]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_ticket_or_refused(data: bytes) -> None:
    try:
        canonical_message(data, "q")
    except BadTicket:
        return


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_refused_with_a_reason(document: Any) -> None:
    with pytest.raises(BadTicket, match=r"."):
        canonical_message(json.dumps(document).encode(), "q")
    with pytest.raises(BadTicket, match=r"."):
        canonical_message(_raw(document), "q")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("unix:///run/v.sock", "redis+socket:///run/v.sock?virtual_host=0"),
        ("unix://me:pw@/run/v.sock?db=3", "redis+socket://me:pw@/run/v.sock?virtual_host=3"),
        ("valkey://h:1/2", "redis://h:1/2"),
        ("redis://h:1/2", "redis://h:1/2"),
        ("amqp://h", "amqp://h"),
    ],
)
def test_the_ledgers_address_is_written_as_kombu_wants_it(url: str, expected: str) -> None:
    assert kombu_url(url) == expected


def test_a_worker_reads_json_tickets_one_by_one_and_takes_no_orders_from_the_queue() -> None:
    app = build(Settings(), "redis://localhost:1/0")
    prepare_worker(app, ["b", "a", "a"], lambda job_id, number, queue: None)
    conf = app.conf
    assert conf.accept_content == ["json"]
    assert conf.task_ignore_result
    assert conf.worker_prefetch_multiplier == 1
    assert not conf.worker_enable_remote_control
    assert not conf.worker_send_task_events
    assert not conf.worker_hijack_root_logger
    assert conf.broker_connection_max_retries is None
    assert [queue.name for queue in conf.task_queues] == ["a", "b"]
    assert [name for name in app.tasks if not name.startswith("celery.")] == ["tidegate.ticket"]


def test_the_ticket_task_refuses_nonsense_without_raising() -> None:
    app = build(Settings(), "redis://localhost:1/0")
    seen: list[tuple[str, int, str]] = []
    prepare_worker(app, ["q"], lambda job_id, number, queue: seen.append((job_id, number, queue)))
    task = app.tasks["tidegate.ticket"]
    job_id = new_job_id()
    task("../..", 1)
    task(job_id)
    task(job_id, "1", 2)
    assert seen == []
    task(job_id, 1)
    assert seen == [(job_id, 1, "tidegate")]
