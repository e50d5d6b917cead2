"""Log lines of worker processes: one short line on standard error, ``key=value`` at its end, and never a password."""

from __future__ import annotations

import logging
import re
import sys
import time

_SECRET = re.compile(r"(\w+://)([^/\s@]*):([^/\s@]+)@")


class LineFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123 INFO worker[a-1] text``; what follows (a traceback) is kept whole."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        """The line, with passwords in URLs masked."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        line = f"{seconds}.{int(record.msecs):03d}Z {record.levelname} {self._name} {text}"
        return _SECRET.sub(r"\1\2:***@", line)


def configure(name: str, level: str) -> None:
    """Send this process's log to standard error. Celery and kombu say only what is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(name))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("celery", "kombu", "amqp", "redis"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
