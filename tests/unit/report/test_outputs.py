"""Text, HTML and JSON of a report: complete, in bounds, and safe whatever stands in names, messages and arguments."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from tidegate.model.job import JobSpec, Origin
from tidegate.model.outcome import Outcome
from tidegate.model.plain import visible, visible_block
from tidegate.report.build import Report
from tidegate.report.document import SCHEMA_VERSION
from tidegate.report.facts import Facts, FailureGroup, Sample
from tidegate.report.findings import find
from tidegate.report.html import embedded_json

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "</script><script>alert(1)//",
    "</style><script>alert(1)</script>",
    "<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "\x1b[2J\x1b]0;owned\x07",
    "a\r\nSet-Cookie: b",
    "\u202egnp.exe",
    "\u2028alert(1)",
    "[bold red]markup[/]",
    "\ud800",
    "=cmd|' /C calc'!A0",
)


def hostile_facts(make_facts: Any, text: str) -> Facts:
    sample = Sample(index=1, outcome=Outcome.FAILED, message=visible(text), attempts=2, arguments=visible(repr(text)))
    group = FailureGroup(
        fingerprint=visible(text),
        error_type=visible(text),
        count=400,
        file=visible(text),
        line=1,
        traceback=visible_block(text),
        samples=(replace(sample, history=(visible(text),)),),
    )
    facts = make_facts(
        task=text,
        queue=text,
        reason=text,
        outcomes={Outcome.SUCCEEDED: 600, Outcome.FAILED: 400},
        errors={text: 400},
        groups=(group,),
        spec=JobSpec(job_id="x", task=text, limits=(text,), origin=Origin(text, 1, text, text)),
    )
    processes = tuple(replace(process, worker=text, host=text) for process in facts.sampled.processes)
    return replace(facts, sampled=replace(facts.sampled, processes=processes, limit_weights={text: 3}))


def report_of(facts: Facts) -> Report:
    return Report(facts, find(facts))


class _Page(HTMLParser):
    """What a browser would make of a page: elements, their attributes, text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif not self._inside:
            self.words.append(data)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_becomes_no_element_and_no_attribute(make_facts: Any, text: str) -> None:
    plain = _Page(report_of(hostile_facts(make_facts, "harmless")).to_html())

    page = _Page(report_of(hostile_facts(make_facts, text)).to_html())

    assert [tag for tag, _ in plain.elements] == [tag for tag, _ in page.elements]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not [attributes for tag, attributes in page.elements if tag in ("iframe", "object", "base", "form", "link")]
    assert visible(text, 300) in "".join(page.words)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_moves_no_cursor_and_forges_no_line(make_facts: Any, text: str) -> None:
    lines = str(report_of(hostile_facts(make_facts, text))).splitlines()
    harmless = str(report_of(hostile_facts(make_facts, "x"))).splitlines()

    assert all(character.isprintable() for line in lines for character in line)
    assert abs(len(lines) - len(harmless)) < 12  # longer names wrap; nothing breaks a line where it likes


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_one_string_in_json(make_facts: Any, text: str) -> None:
    written = report_of(hostile_facts(make_facts, text)).to_json()

    assert written.isascii()
    assert "\n" not in written
    assert json.loads(written)["job"]["task"] == visible(text, 300)


@pytest.mark.parametrize("text", [*HOSTILE[:6], "]]>", "&lt;/script&gt;"])
def test_json_inside_a_page_can_not_end_its_script(text: str) -> None:
    written = str(embedded_json({text: [text]}))

    assert not set("<>&") & set(written)
    assert json.loads(written) == {text: [text]}


def test_the_page_stands_alone(make_facts: Any) -> None:
    page = _Page(report_of(make_facts()).to_html())

    sources = [a[name] for tag, a in page.elements if tag != "a" for name in ("src", "href") if a.get(name)]
    assert sources == []
    assert any("plotly.js" in script for script in page.scripts)
    figures = [json.loads(script) for script in page.scripts if script.startswith("{")]
    assert set(figures[0]) == {"outcomes", "run_time", "attribution", "throughput", "memory"}


def test_the_page_can_be_read_without_javascript(make_facts: Any) -> None:
    words = " ".join(" ".join(_Page(report_of(make_facts()).to_html()).words).split())

    for part in ("1,000 of 1,000 items done", "Nothing stands out.", "100 ms", "box:100", "waiting for a limit"):
        assert part in words


def test_a_notebook_gets_no_script_and_little_text(make_facts: Any) -> None:
    shown = report_of(make_facts())._repr_html_()

    assert "<script" not in shown
    assert len(shown) < 60_000


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_text_fits_its_columns(make_facts: Any, width: int) -> None:
    facts = hostile_facts(make_facts, "a very long name of something " * 8)

    assert max(map(len, report_of(facts).to_text(width=width).splitlines())) <= width


def test_text_says_what_is_exact_and_what_is_sampled(make_facts: Any) -> None:
    text = str(report_of(make_facts()))

    assert "Time (exact, from the ledger)" in text
    assert "configured 12, peak 12, average 10 (exact), efficiency 83 %; sampled over 10 s" in text


def test_json_follows_its_schema_with_units_in_its_names(make_facts: Any) -> None:
    document = report_of(make_facts()).to_dict()

    assert document["schema_version"] == SCHEMA_VERSION
    assert set(document) == {
        *("schema_version", "job", "items", "batches", "times", "errors"),
        *("failures", "concurrency", "workers_sampled", "findings"),
    }
    assert document["items"]["success_rate"] == 1.0
    assert document["items"]["per_s"] == 100.0
    assert document["times"]["running"]["mean_s"] == pytest.approx(0.1)
    assert document["times"]["running"]["p99_s"] == pytest.approx(0.1, rel=0.032)
    assert document["times"]["backoff"] == {
        **dict.fromkeys(("mean_s", "min_s", "p50_s", "p95_s", "p99_s", "max_s")),
        "count": 0,
        "sum_s": 0.0,
    }
    assert document["concurrency"]["efficiency"] == pytest.approx(10 / 12, abs=1e-6)
    assert document["workers_sampled"]["processes"][0]["memory_limit_bytes"] == 1 << 30


def test_a_job_that_nobody_has_touched_can_be_reported(make_facts: Any, make_telemetry: Any) -> None:
    facts = make_facts(
        outcomes={}, total=0, batches=0, batches_done=0, attempts=0, started_ms=0, finished_ms=0, times={}, spec=None
    )
    empty = report_of(replace(facts, sampled=make_telemetry(seconds=0)))

    assert "no item has ended" in str(empty)
    assert "No telemetry" in empty.to_html()
    assert json.loads(empty.to_json())["items"]["success_rate"] is None
