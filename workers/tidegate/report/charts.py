"""The report's charts as plain plotly figures: data and layout, no theme (the page's script adds the colours of its theme).

They are written as dicts, because importing plotly's Python classes takes longer than making the whole report; only its
script is used. plotly reads a little HTML in labels, so every label from outside is escaped.
"""

from __future__ import annotations

from html import escape
from typing import Any

from tidegate.model.outcome import Outcome
from tidegate.model.plain import visible
from tidegate.model.stats import TIME_CLASSES, Distribution, coarse_bounds_ns
from tidegate.report.facts import Facts
from tidegate.report.text import CLASS_NAMES

Figure = dict[str, Any]

#: Colours that the page's style sheet also defines for tables and bars, by meaning: legible on light and dark.
COLOURS = {
    "succeeded": "#2f9e6e",
    "failed": "#d9485f",
    "timed_out": "#e08e1b",
    "cancelled": "#8a93a3",
    "crashed": "#9b5de5",
    "pending": "#c3cad6",
    "ready": "#aab4c4",
    "queued": "#6c8ebf",
    "limited": "#e08e1b",
    "backoff": "#d9485f",
    "running": "#2f9e6e",
    "settling": "#9b5de5",
}
_LINES = ("#3d7edb", "#2f9e6e", "#e08e1b", "#d9485f", "#9b5de5", "#17a2b8", "#8a93a3", "#b5651d")


def figures(facts: Facts) -> dict[str, Figure]:
    """The figures that have something to show, by name."""
    made = {
        "outcomes": _outcomes(facts),
        "run_time": _run_time(facts),
        "attribution": _attribution(facts),
        "throughput": _throughput(facts),
        "memory": _memory(facts),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def _outcomes(facts: Facts) -> Figure | None:
    counts = {str(outcome): facts.progress.outcomes.get(outcome, 0) for outcome in Outcome}
    counts["pending"] = facts.progress.pending
    shown = {name: count for name, count in counts.items() if count}
    if not shown:
        return None
    pie = {
        "type": "pie",
        "hole": 0.62,
        "sort": False,
        "labels": [name.replace("_", " ") for name in shown],
        "values": list(shown.values()),
        "marker": {"colors": [COLOURS[name] for name in shown]},
        "textinfo": "none",
        "hovertemplate": "%{label}: %{value:,} (%{percent})<extra></extra>",
    }
    return {"data": [pie], "layout": {"title": {"text": "Outcomes"}, "showlegend": True}}


def _run_time(facts: Facts) -> Figure | None:
    buckets = facts.times.get("running", Distribution()).buckets
    if not buckets:
        return None
    bounds = [coarse_bounds_ns(index) for index in sorted(buckets)]
    bars = {
        "type": "bar",
        "x": [(low + high) / 2e9 for low, high in bounds],
        "y": [buckets[index] for index in sorted(buckets)],
        "width": [(high - low) / 1e9 for low, high in bounds],
        "marker": {"color": COLOURS["running"], "line": {"width": 0}},
        "hovertemplate": "about %{x:.3s}s: %{y:,} runs<extra></extra>",
    }
    return {
        "data": [bars],
        "layout": {
            "title": {"text": "Run time of an attempt"},
            "xaxis": {"type": "log", "title": {"text": "seconds"}, "exponentformat": "SI"},
            "yaxis": {"title": {"text": "attempts"}},
            "bargap": 0,
        },
    }


def _attribution(facts: Facts) -> Figure | None:
    times = {name: facts.times.get(name, Distribution()).sum_ns for name in TIME_CLASSES if name != "ready"}
    if not any(times.values()):
        return None
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "name": CLASS_NAMES[name],
            "x": [ns / 1e9],
            "y": [""],
            "marker": {"color": COLOURS[name]},
            "hovertemplate": f"{CLASS_NAMES[name]}: %{{x:,.2f}} s<extra></extra>",
        }
        for name, ns in times.items()
        if ns
    ]
    layout = {
        "title": {"text": "Where the items' time went, all together"},
        "barmode": "stack",
        "xaxis": {"ticksuffix": " s"},
        "legend": {"traceorder": "normal"},
        "showlegend": True,
    }
    return {"data": bars, "layout": layout}


def _throughput(facts: Facts) -> Figure | None:
    points = facts.sampled.timeline
    if len(points) < 2:
        return None
    at = [point.at_ms for point in points]
    lines = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": at,
            "y": [getattr(point, field) * 1e3 / point.width_ms for point in points],
            "line": {"color": colour, "width": 2, "shape": "hv"},
        }
        for name, field, colour in (
            ("succeeded", "succeeded", COLOURS["succeeded"]),
            ("not succeeded", "unsuccessful", COLOURS["failed"]),
            ("retried", "retried", COLOURS["timed_out"]),
        )
    ]
    running = {
        "type": "scatter",
        "mode": "lines",
        "name": "running at once",
        "x": at,
        "y": [point.average_running for point in points],
        "yaxis": "y2",
        "line": {"color": "#3d7edb", "width": 1.5, "dash": "dot"},
    }
    layout = {
        "title": {"text": "Throughput (sampled)"},
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": "items a second"}, "rangemode": "tozero"},
        "yaxis2": {
            "title": {"text": "at once"},
            "overlaying": "y",
            "side": "right",
            "rangemode": "tozero",
            "showgrid": False,
        },
        "showlegend": True,
    }
    return {"data": [*lines, running], "layout": layout}


def _memory(facts: Facts) -> Figure | None:
    processes = [process for process in facts.sampled.processes if len(process.memory_points) > 1][:32]
    if not processes:
        return None
    lines: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": escape(f"{visible(process.host, 40)}:{process.pid}", quote=False),  # plotly knows no &quot;
            "x": [at for at, _ in process.memory_points],
            "y": [value / 2**20 for _, value in process.memory_points],
            "line": {"width": 2, "color": _LINES[number % len(_LINES)]},
        }
        for number, process in enumerate(processes)
    ]
    layout = {
        "title": {"text": "Memory by process (sampled)"},
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": "MiB"}, "rangemode": "tozero"},
        "showlegend": True,
    }
    return {"data": lines, "layout": layout}
