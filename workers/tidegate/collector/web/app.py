"""The collector's web application: metrics, health, JSON API, live events and the dashboard. It changes nothing."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tidegate.collector.service import Collector
from tidegate.collector.view import history, job_row, overview
from tidegate.collector.web.guard import Guard
from tidegate.collector.web.reports import ReportCache, ReportView
from tidegate.errors import JobNotFound, LedgerError

MAX_EVENT_READERS = 32
EVENT_S = 1.0
_JOB_ID = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")
_STATIC = {
    "tidegate.css": "text/css; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "job.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Pages:
    """The routes."""

    def __init__(self, collector: Collector, reports: Callable[[str], ReportView]) -> None:
        self._stopping = threading.Event()
        self._collector = collector
        self._reports = ReportCache(reports)
        self._readers = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector.metrics)

    def routes(self) -> list[Route]:
        return [
            Route("/", self.dashboard),
            Route("/jobs/{job_id}", self.job_page),
            Route("/metrics", self.metrics),
            Route("/healthz", self.health),
            Route("/api/overview", self.overview),
            Route("/api/jobs", self.jobs),
            Route("/api/jobs/{job_id}", self.job),
            Route("/api/jobs/{job_id}/report", self.report),
            Route("/api/jobs/{job_id}/report.html", self.report_page),
            Route("/api/events", self.events),
            Route("/static/{name}", self.static),
        ]

    # -- machines ----------------------------------------------------------------------------------------------
    async def metrics(self, request: Request) -> Response:
        """What Prometheus scrapes."""
        if "application/openmetrics-text" in request.headers.get("accept", ""):
            return Response(
                await run_in_threadpool(as_openmetrics, self._registry), headers={"Content-Type": OPENMETRICS}
            )
        text = await run_in_threadpool(generate_latest, self._registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(self, request: Request) -> Response:
        """200 when the stream and the ledger could be read last time, 503 when not."""
        well = not self._collector.trouble
        return PlainTextResponse("ok\n" if well else "the ledger cannot be read\n", 200 if well else 503)

    async def overview(self, request: Request) -> Response:
        """How everything stands, with the history of five minutes or an hour."""
        window = _choice(request, "window", ("5m", "1h"))
        return JSONResponse(await run_in_threadpool(self._overview, window))

    def _overview(self, window: str | None) -> dict[str, Any]:
        collector = self._collector
        now_ms = collector.now_ms()
        document = overview(collector.aggregate, collector.jobs.snapshot(), now_ms)
        document["trouble"] = collector.trouble
        if window:
            ring = collector.aggregate.seconds if window == "5m" else collector.aggregate.ten_seconds
            with collector.aggregate.lock:
                document["history"] = history(ring, now_ms)
        return document

    async def jobs(self, request: Request) -> Response:
        """The newest jobs."""
        limit = _number(request, "limit", default=50, highest=100)
        snapshot = self._collector.jobs.snapshot()
        rows = [job_row(job) for job in snapshot.jobs[:limit]]
        return JSONResponse({"schema_version": 1, "jobs": rows, "cut": snapshot.cut or len(snapshot.jobs) > limit})

    async def job(self, request: Request) -> Response:
        """One job, as the ledger has it now."""
        return JSONResponse(job_row(await run_in_threadpool(self._collector.ledger.progress, _job_id(request))))

    async def report(self, request: Request) -> Response:
        """The report of a job in the schema of docs/report.md."""
        report = await run_in_threadpool(self._reports.get, _job_id(request))
        return JSONResponse(await run_in_threadpool(report.to_dict))

    async def report_page(self, request: Request) -> Response:
        """The report as a file to keep: it stands alone, so it is offered for download and not shown under our policy."""
        job_id = _job_id(request)
        report = await run_in_threadpool(self._reports.get, job_id)
        page = await run_in_threadpool(report.to_html)
        return HTMLResponse(page, headers={"Content-Disposition": f'attachment; filename="tidegate-{job_id}.html"'})

    async def events(self, request: Request) -> Response:
        """The overview and the jobs once a second, as server-sent events."""
        if self._readers >= MAX_EVENT_READERS:
            raise HTTPException(503, "too many pages are open")
        return EventSourceResponse(self._events(), ping=15)

    async def _events(self) -> AsyncIterator[dict[str, str]]:
        self._readers += 1
        try:
            while not self._stopping.is_set():
                document = await run_in_threadpool(self._overview, None)
                document["job_rows"] = [job_row(job) for job in self._collector.jobs.snapshot().jobs[:50]]
                yield {"event": "overview", "data": json.dumps(document)}
                await self._next_second()
        finally:
            self._readers -= 1

    async def _next_second(self) -> None:
        for _ in range(10):
            if not self._stopping.is_set():
                await asyncio.sleep(EVENT_S / 10)

    def stop(self) -> None:
        """End live events, from any thread: the server waits for them."""
        self._stopping.set()

    # -- people ------------------------------------------------------------------------------------------------
    async def dashboard(self, request: Request) -> Response:
        """Everything at a glance, live."""
        return HTMLResponse(_templates().get_template("dashboard.html").render())

    async def job_page(self, request: Request) -> Response:
        """One job: its report, made anew while it runs."""
        report = await run_in_threadpool(self._reports.get, _job_id(request))
        document = await run_in_threadpool(report.to_dict)
        # Escaped by the report's own templates; a test reads it with a browser and hostile names.
        fragment = Markup(await run_in_threadpool(report.to_fragment))  # noqa: S704
        page = _templates().get_template("job.html").render(job=document["job"], fragment=fragment)
        return HTMLResponse(page)

    async def static(self, request: Request) -> Response:
        """Our own files and plotly's script, from a fixed list."""
        name = request.path_params["name"]
        headers = {"Cache-Control": "private, max-age=300"}
        if name == "plotly.min.js":
            body = await run_in_threadpool(_plotly)
            return Response(body, media_type="text/javascript; charset=utf-8", headers=headers)
        if name not in _STATIC:
            raise HTTPException(404, "no such file")
        return Response(_static(name), media_type=_STATIC[name], headers=headers)


def build_app(
    collector: Collector,
    reports: Callable[[str], ReportView],
    *,
    token: str | None = None,
    names: frozenset[str] | None = None,
) -> tuple[Guard, Pages]:
    """The guarded application and its pages. ``reports`` makes the report of a job id."""
    pages = Pages(collector, reports)
    app = Starlette(
        routes=pages.routes(),
        exception_handlers={HTTPException: _http_error, JobNotFound: _not_found, LedgerError: _ledger_error},
    )
    return Guard(app, token=token, names=names), pages


def _job_id(request: Request) -> str:
    job_id = str(request.path_params["job_id"])
    if not _JOB_ID.match(job_id):
        raise HTTPException(404, "that is no job id")
    return job_id


def _number(request: Request, name: str, *, default: int, highest: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= highest):
        raise HTTPException(400, f"{name} must be a number from 1 to {highest}")
    return int(text)


def _choice(request: Request, name: str, choices: tuple[str, ...]) -> str | None:
    value = request.query_params.get(name)
    if value is not None and value not in choices:
        raise HTTPException(400, f"{name} must be one of {', '.join(choices)}")
    return value


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=dict(error.headers or {}))


async def _not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "no such job: never opened, or past its time to live"}, 404)


async def _ledger_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the ledger cannot be read now"}, 503)


@cache
def _static(name: str) -> bytes:
    return (resources.files("tidegate.collector.web") / "static" / name).read_bytes()


@cache
def _plotly() -> bytes:
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()


@cache
def _templates() -> Environment:
    return Environment(loader=PackageLoader("tidegate.collector.web"), autoescape=True, undefined=StrictUndefined)
