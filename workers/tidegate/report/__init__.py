"""From facts to findings to text, HTML and JSON: what happened to a job, why it took that long, and what to change."""

from tidegate.report.build import Report, build

__all__ = ["Report", "build"]
