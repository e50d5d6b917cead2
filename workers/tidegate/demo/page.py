"""Both reports on one page that stands alone."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.report import Report
from tidegate.report.html import asset, plotly_script

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Tidegate demo</title>
<style>{style}</style>
</head>
<body class="tg">
<main>
{parts}
</main>
<script>{plotly}</script>
<script>{script}</script>
<script>for (const part of document.querySelectorAll(".tg-part")) {{ tidegate.drawAll(part); }}</script>
</body>
</html>
"""


def as_page(reports: Mapping[str, Report]) -> str:
    """One page for several reports: what is in them was escaped where it was made."""
    parts = "\n".join(
        f'<section class="tg-part" id="{name}">{report.to_fragment()}</section>' for name, report in reports.items()
    )
    return _PAGE.format(style=asset("tidegate.css"), parts=parts, plotly=plotly_script(), script=asset("charts.js"))
