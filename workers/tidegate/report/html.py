"""The report as HTML: a fragment (for notebooks and the collector's job page) and a page that stands alone, offline.

Both are complete without JavaScript: numbers are in tables and bars are drawn by the style sheet. The page adds plotly's
charts, from the script in plotly's own wheel. Jinja escapes everything; figures travel in a JSON block.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tidegate.report import units
from tidegate.report.charts import COLOURS, figures
from tidegate.report.document import document
from tidegate.report.facts import Facts
from tidegate.report.findings import Finding
from tidegate.report.text import CLASS_NAMES


def as_fragment(facts: Facts, findings: tuple[Finding, ...], *, charts: bool = False) -> str:
    """The body of the report. ``charts``: with the figures, for a page that has the script to draw them."""
    return _environment().get_template("fragment.html").render(**_values(facts, findings, charts=charts))


def as_notebook(facts: Facts, findings: tuple[Finding, ...]) -> str:
    """The fragment with its style, and no script at all: notebooks drop scripts, and 5 MB a cell would be no gift."""
    values = _values(facts, findings, charts=False)
    return _environment().get_template("notebook.html").render(**values, style=_trusted(asset("tidegate.css")))


def as_page(facts: Facts, findings: tuple[Finding, ...]) -> str:
    """A page with everything in it: style, plotly, figures."""
    return (
        _environment()
        .get_template("page.html")
        .render(
            **_values(facts, findings, charts=True),
            style=_trusted(asset("tidegate.css")),
            plotly=_trusted(plotly_script()),
            script=_trusted(asset("charts.js")),
        )
    )


@cache
def asset(name: str) -> str:
    """A file of the dashboard that a report shares: its look is the same in both."""
    return (resources.files("tidegate.collector.web") / "static" / name).read_text(encoding="utf-8")


@cache
def plotly_script() -> str:
    """plotly's own script, as its wheel carries it. No end tag of a script may occur in it."""
    text = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return text.replace("</script", "<\\/script")


def embedded_json(value: Any) -> Markup:
    """JSON that may stand inside a script element: no end tag, no comment, no line separator of old JavaScript."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return _trusted(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _trusted(text: str) -> Markup:
    """Our own files, and JSON in which nothing can end the script element."""
    return Markup(text)  # noqa: S704


def _values(facts: Facts, findings: tuple[Finding, ...], *, charts: bool) -> dict[str, Any]:
    return {
        "report": document(facts, findings),
        "class_names": CLASS_NAMES,
        "colours": COLOURS,
        "figures": embedded_json(figures(facts)) if charts else None,
        "chart_names": list(figures(facts)) if charts else [],
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tidegate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "seconds": lambda seconds: "—" if seconds is None else units.duration(seconds * 1e9),
        "size": lambda value: "—" if value is None else units.size(value),
        "share": lambda value: "—" if value is None else units.share(value, 1),
        "count": lambda value: "—" if value is None else f"{value:,}",
        "number": lambda value: "—" if value is None else f"{value:,.3g}",
        "per_s": lambda value: "—" if value is None else units.rate(value),
        "moment": lambda ms: "—" if not ms else f"{datetime.fromtimestamp(ms / 1e3, UTC):%Y-%m-%d %H:%M:%S} UTC",
    }
    return environment
