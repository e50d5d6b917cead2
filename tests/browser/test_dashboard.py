"""The dashboard and the job page in a real browser: live, offline, legible, and deaf to what names try to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from watched import World, failing

from tidegate import report
from tidegate.collector.web.server import WebServer

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "</script><script>alert(1)//",
    '<a href="javascript:alert(1)">x</a>',
    "<b>%{x}</b><extra>",
    "${alert(1)}{{ 7 * 7 }}",
    "\u202egnp.\x1b[31m",
)


def violations(console: list[str]) -> list[str]:
    """What the content policy refused. plotly brings a style sheet for maps, which we have none of; that one may be refused."""
    refused = [text for text in console if "Content Security Policy" in text]
    return [text for text in refused if not text.startswith("Applying inline style")]


def hostile_job(world: World, text: str) -> str:
    job_id, tickets = world.submit(task=text, items=100, limits=(text,))
    settle = failing(0.5, message=text, error_type=text, argument={text: text})
    world.work(job_id, tickets, batches=1, settle=settle)
    begun_ms = world.ledger.progress(job_id).started_ms
    for sequence in (1, 2):  # a second apart, so that there is a line to draw
        at_ms = begun_ms + 100 + 1000 * (sequence - 1)
        world.tell(text, sequence, at_ms=at_ms, task=text, host=text, lane={"errors": {text: 1}, "limits": {text: 1}})
    world.ledger.park(job_id, text)
    return job_id


def assert_harmless(page: Any, watch: Any, *texts: str) -> None:
    """Nothing of what the names try to be has come to life, and they can be read."""
    assert watch.dialogs == []
    assert watch.errors == []
    assert violations(watch.console) == []
    assert page.locator("main img:not(.mark), main script:not(.tg-figures), a[href^=javascript]").count() == 0
    assert not page.evaluate(
        "[...document.querySelectorAll('*')].some(e => [...e.attributes].some(a => /^on/.test(a.name)))"
    )
    words = page.locator("main").inner_text()
    for text in texts:
        assert text.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b") in words


def test_the_dashboard_shows_hostile_names_as_text(world: World, address: str, open_page: Any) -> None:
    jobs = [world.submit(task=text)[0] for text in HOSTILE]
    for job_id, text in zip(jobs, HOSTILE, strict=True):
        world.ledger.park(job_id, text)
        world.tell(text, 1, task=text, host=text, lane={"errors": {text: 1}, "limits": {text: 1}})

    page, watch = open_page(address)
    for job_id in jobs:
        page.wait_for_selector(f"a[href='/jobs/{job_id}']")
    page.wait_for_selector("#chart-throughput .main-svg")

    assert_harmless(page, watch, *HOSTILE)


@pytest.mark.parametrize("text", [HOSTILE[1], HOSTILE[3], HOSTILE[4], HOSTILE[5]])
def test_the_page_of_a_job_shows_hostile_names_as_text(world: World, address: str, open_page: Any, text: str) -> None:
    page, watch = open_page(f"{address}/jobs/{hostile_job(world, text)}")
    page.wait_for_selector(".chart[data-chart=memory] .main-svg")

    assert_harmless(page, watch, text)
    assert text in page.locator(".chart[data-chart=memory] .legendtext").first.text_content()


def test_everything_comes_from_the_collector(world: World, address: str, open_page: Any) -> None:
    job_id, tickets = world.submit()
    world.work(job_id, tickets)

    page, watch = open_page(address)
    page.wait_for_selector("#chart-memory .main-svg")
    page.click(f"a[href='/jobs/{job_id}']")
    page.wait_for_selector(".chart[data-chart=outcomes] .main-svg")

    assert [url for url in watch.requests if not url.startswith((address, "data:"))] == []
    assert watch.errors == []


def test_a_job_moves_before_ones_eyes(world: World, address: str, open_page: Any) -> None:
    job_id, tickets = world.submit(items=200)
    page, _ = open_page(address)
    row = f"tr:has(a[href='/jobs/{job_id}'])"
    page.wait_for_selector(f"{row} >> text=0 of 200")

    world.work(job_id, tickets, batches=2, settle=failing(0.2))
    page.wait_for_selector(f"{row} >> text=100 of 200")
    world.tell("a", 1)
    world.tell("a", 2)
    page.wait_for_selector("#workers >> text=1")
    page.wait_for_selector("#live.on")
    world.work(job_id, tickets)

    page.wait_for_selector(f"{row} >> text=200 of 200")
    page.wait_for_selector(f"{row} .state-done")
    assert page.locator(f"{row} td").nth(3).inner_text() == "20"


def test_the_page_of_a_running_job_is_made_anew(world: World, address: str, open_page: Any) -> None:
    job_id, tickets = world.submit(items=100)
    page, _ = open_page(f"{address}/jobs/{job_id}")
    page.wait_for_selector("text=of 100 items done")

    world.work(job_id, tickets)

    page.wait_for_selector("#job[data-ended=true]")
    assert "100 %" in page.locator(".tiles").inner_text()


def test_a_lost_collector_is_said(server: WebServer, open_page: Any) -> None:
    page, _ = open_page(server.address)
    page.wait_for_selector("#live.on")

    server.stop()

    page.wait_for_selector("#live.off")


#: By selector and in one go: an element that was found first may be replaced by a newer one before it is looked at.
LUMINANCE = """selector => {
  const element = document.querySelector(selector);
  const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(v => {
    v /= 255; return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); });
  const light = ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
  let ground = element;
  while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
  const a = light(rgb(getComputedStyle(element).color)), b = light(rgb(getComputedStyle(ground).backgroundColor));
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_light_and_dark(world: World, address: str, open_page: Any, scheme: str) -> None:
    job_id, tickets = world.submit(items=100)
    world.work(job_id, tickets, settle=failing(0.6))

    for url, parts in (
        (address, ("h2", ".tile b", ".tile span", "td a", "td .sub", "thead th", ".live")),
        (
            f"{address}/jobs/{job_id}",
            ("h1", ".eyebrow", ".finding .title", ".finding .quiet", ".badge", "tbody td", "pre", "footer"),
        ),
    ):
        page, _ = open_page(url, color_scheme=scheme)
        for part in parts:
            page.wait_for_selector(part)
            assert page.evaluate(LUMINANCE, part) >= 4.5, f"{part} in {scheme}"


def test_a_narrow_screen_does_not_scroll_sideways(world: World, address: str, open_page: Any) -> None:
    job_id, tickets = world.submit(task="a.very.long.name.of.a.task." * 8, items=100)
    world.work(job_id, tickets, settle=failing(0.6, message="m" * 400))

    for url in (address, f"{address}/jobs/{job_id}"):
        page, _ = open_page(url, viewport={"width": 380, "height": 800})
        page.wait_for_selector(".chart .main-svg")
        assert page.evaluate("document.documentElement.scrollWidth") <= 380


# -- the page to keep --------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(world: World, tmp_path: Path) -> str:
    """A report as a file, of a job with a hostile name."""
    job_id = hostile_job(world, HOSTILE[1])
    file = tmp_path / "report.html"
    file.write_text(report.build(world.ledger, job_id).to_html())
    return file.as_uri()


def test_a_kept_report_draws_its_charts_with_no_network(kept: str, open_page: Any) -> None:
    page, watch = open_page(kept, offline=True)

    page.wait_for_selector(".chart[data-chart=run_time] .main-svg")

    assert watch.dialogs == watch.errors == []
    assert [url for url in watch.requests if not url.startswith(("file:", "data:"))] == []


def test_a_kept_report_can_be_read_without_javascript(kept: str, open_page: Any) -> None:
    page, _ = open_page(kept, java_script_enabled=False)

    words = page.locator("main").inner_text()

    assert "50 of 100 items done" in " ".join(words.split())
    assert HOSTILE[1] in words
    assert page.locator(".chart:visible").count() == 0
