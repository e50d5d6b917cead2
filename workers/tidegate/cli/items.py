"""Items from a file or from standard input: NDJSON, CSV with a header, or plain lines. Read lazily, a line at a time."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tidegate.errors import ConfigurationError, PayloadError

FORMATS = ("ndjson", "csv", "lines")
_BY_ENDING = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson", ".csv": "csv", ".txt": "lines"}


def format_of(file: str, chosen: str | None) -> str:
    """The format that was chosen, else the one that the file's name tells; ``ConfigurationError`` if neither."""
    if chosen is not None:
        if chosen not in FORMATS:
            raise ConfigurationError(f"--format {chosen}", remedy=f"use one of {', '.join(FORMATS)}")
        return chosen
    found = _BY_ENDING.get(Path(file).suffix.lower())
    if found is None:
        what = "standard input" if file == "-" else file
        raise ConfigurationError(
            f"the format of {what} is not known by its name", remedy="add --format ndjson, csv or lines"
        )
    return found


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """The file, or standard input for ``-``."""
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).open("rb")  # noqa: SIM115 - closed below; only opening it has this error
    except OSError as error:
        raise ConfigurationError(
            f"{file}: {error.strerror}", remedy="name a readable file, or - for standard input"
        ) from None
    with stream:
        yield stream


def read_items(stream: BinaryIO, name: str, kind: str, column: str | None = None) -> Iterator[Any]:
    """The items of ``stream``. ``PayloadError`` names the line that cannot be read.

    ``column``: of CSV, the value of that column instead of the whole row; of NDJSON, that key of each object.

    >>> import io
    >>> list(read_items(io.BytesIO(b"a,b\\n1,2\\n"), "x.csv", "csv"))
    [{'a': '1', 'b': '2'}]
    """
    if kind == "csv":
        return _csv_rows(stream, name, column)
    if kind == "ndjson":
        return _json_lines(stream, name, column)
    if column is not None:
        raise ConfigurationError("--column", remedy="plain lines have no columns: leave it out, or use csv or ndjson")
    return _plain_lines(stream, name)


def _plain_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        text = _text(line, name, number).rstrip("\r\n")
        if text:
            yield text


def _json_lines(stream: BinaryIO, name: str, column: str | None) -> Iterator[Any]:
    decode = msgspec.json.Decoder().decode
    for number, line in enumerate(stream, 1):
        if line.isspace():
            continue
        try:
            item = decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise PayloadError(
                f"line {number} of {name} is not JSON: {error}", remedy="write one JSON value a line", line=number
            ) from None
        if column is None:
            yield item
        elif isinstance(item, dict) and column in item:
            yield item[column]
        else:
            raise PayloadError(
                f"line {number} of {name} has no {column!r}", remedy="correct it, or --column", line=number
            )


def _csv_rows(stream: BinaryIO, name: str, column: str | None) -> Iterator[Any]:
    texts = (_text(line, name, number) for number, line in enumerate(stream, 1))
    rows = csv.reader(texts, strict=True)
    try:
        header = next(rows, None)
        if header is None:
            return
        header[0] = header[0].removeprefix("\ufeff")
        if len(set(header)) != len(header):
            raise PayloadError(f"the header of {name} names a column twice", remedy="give each column its own name")
        if column is not None and column not in header:
            raise ConfigurationError(f"{name} has no column {column!r}", remedy=f"use one of {', '.join(header)}")
        place = None if column is None else header.index(column)
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise PayloadError(
                    f"line {rows.line_num} of {name} has {len(row)} fields, the header has {len(header)}",
                    remedy="correct the line",
                    line=rows.line_num,
                )
            yield dict(zip(header, row, strict=True)) if place is None else row[place]
    except csv.Error as error:
        raise PayloadError(f"line {rows.line_num} of {name} is not CSV: {error}", remedy="correct the line") from None


def _text(line: bytes, name: str, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise PayloadError(
            f"line {number} of {name} is not UTF-8", remedy="convert the file to UTF-8", line=number
        ) from None
