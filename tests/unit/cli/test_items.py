"""Items from files: three formats, read lazily, and errors that name the line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tidegate.cli.items import format_of, opened, read_items
from tidegate.errors import ConfigurationError, PayloadError


def _read(data: bytes, kind: str, column: str | None = None) -> list[object]:
    return list(read_items(io.BytesIO(data), "items", kind, column))


def test_plain_lines_are_texts() -> None:
    assert _read("ä\r\n\nb".encode(), "lines") == ["ä", "b"]


def test_ndjson_is_a_value_a_line() -> None:
    assert _read(b'{"a": 1}\n\n[1, 2]\n"x"\nnull\n', "ndjson") == [{"a": 1}, [1, 2], "x", None]
    assert _read(b'{"a": 1, "b": 2}\n', "ndjson", "b") == [2]


def test_csv_rows_are_mappings_by_the_header_or_one_column() -> None:
    data = b'\xef\xbb\xbfname,price\n"a, b","1\n2"\n\nc,3\n'

    assert _read(data, "csv") == [{"name": "a, b", "price": "1\n2"}, {"name": "c", "price": "3"}]
    assert _read(data, "csv", "price") == ["1\n2", "3"]
    assert _read(b"", "csv") == []


@pytest.mark.parametrize(
    ("data", "kind", "column", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "ndjson", None, "line 2 of items is not JSON"),
        (b'{"a": 1}\n', "ndjson", "b", "line 1 of items has no 'b'"),
        (b"[1]\n", "ndjson", "b", "line 1 of items has no 'b'"),
        (b"a,b\n1,2\n3\n", "csv", None, "line 3 of items has 1 fields, the header has 2"),
        (b"a,a\n", "csv", None, "names a column twice"),
        (b'a,b\n"x\n', "csv", None, "line 2 of items is not CSV"),
        (b"ok\n\xff\n", "lines", None, "line 2 of items is not UTF-8"),
        (b"[" * 100_000 + b"\n", "ndjson", None, "line 1 of items is not JSON"),
    ],
)
def test_what_cannot_be_read_names_the_line(data: bytes, kind: str, column: str | None, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        _read(data, kind, column)


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no column 'c': use one of a, b"):
        _read(b"a,b\n", "csv", "c")
    with pytest.raises(ConfigurationError, match="plain lines have no columns"):
        _read(b"a\n", "lines", "a")


def test_the_format_is_told_by_the_name_or_by_the_option() -> None:
    assert [format_of(name, None) for name in ("a.ndjson", "b.JSONL", "c.csv", "d.txt")] == [
        "ndjson",
        "ndjson",
        "csv",
        "lines",
    ]
    assert format_of("-", "csv") == "csv"
    with pytest.raises(ConfigurationError, match="standard input is not known by its name: add --format"):
        format_of("-", None)
    with pytest.raises(ConfigurationError, match="--format xml: use one of ndjson, csv, lines"):
        format_of("a.csv", "xml")


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"), opened(str(tmp_path / "missing.csv")):
        pass
    with pytest.raises(ConfigurationError, match="Is a directory"), opened(str(tmp_path)):
        pass


def test_lines_are_read_lazily() -> None:
    """A file larger than memory must work."""
    stream = io.BytesIO(b"1\n2\n3\n")
    items = read_items(stream, "items", "ndjson")

    assert next(items) == 1
    assert stream.tell() < 6
