"""CSV and TSV as rows of text: nothing is guessed, and a quote or a delimiter in the wrong place is an error with its line.

What spreadsheets add is understood: a first line `sep=;`, and blank columns at the right.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from itertools import chain
from typing import IO, Literal

from finespun.errors import DataError, listed

SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)
ROWS_IN_A_FIELD = 2  # a field that holds so many whole lines of the table has most likely a quote that was never closed
QUOTING: dict[str, Literal[0, 3]] = {"auto": csv.QUOTE_MINIMAL, "standard": csv.QUOTE_MINIMAL, "none": csv.QUOTE_NONE}
REMEDY = (
    "quote the field, double quotes inside it, set data.quoting: none if quotes are text (predict --quoting), or set"
    " data.delimiter (predict --delimiter)"
)


def rows(file: IO[str], name: str, delimiter: str, quoting: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the line where a row begins and its fields by column.

    Args:
        file: opened with `newline=""`.
        name: for messages.
        delimiter: between the fields; a line `sep=` above the header goes before it.
        quoting: `data.quoting`.

    Raises:
        DataError: the header or a row is not whole, or a quote seems to swallow rows.
    """
    csv.field_size_limit(sys.maxsize)
    first = file.readline()
    said = SEPARATOR_LINE.fullmatch(first)
    lines, before = (file, 1) if said else (chain([first] if first else [], file), 0)
    delimiter = said[1] if said else delimiter
    reader = csv.reader(lines, delimiter=delimiter, strict=True, quoting=QUOTING[quoting])
    start = before + 1
    try:
        header = _header(next(reader, None), f"{name}:{start}", name)
        width = len(header)
        start = before + reader.line_num + 1
        for fields in reader:
            if any(fields[width:]) or 0 < len(fields) < width:
                raise _wrong_width(fields, width, f"{name}:{start}", delimiter)
            if fields:
                if quoting == "auto" and before + reader.line_num > start:
                    _require_no_rows_inside(fields, f"{name}:{start}", before + reader.line_num, delimiter, width)
                yield start, dict(zip(header, fields, strict=False))
            start = before + reader.line_num + 1
    except csv.Error as error:
        last = before + reader.line_num
        place = f"{name}:{start}" if last <= start else f"{name}:{start} to {last}"
        raise DataError(f"{place}: is not CSV ({error}); {REMEDY}") from error


def _header(given: list[str] | None, place: str, name: str) -> list[str]:
    """Returns the names of the columns, without blank ones at the right."""
    if given is None:
        raise DataError(f"{name}: is empty; put your rows into it")
    header = [column.strip() if column.isspace() else column for column in given]
    while header and not header[-1]:
        header.pop()
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise DataError(f"{place}: the header names {listed(map(repr, twice))} twice; rename one")
    return header


def _wrong_width(fields: list[str], width: int, place: str, delimiter: str) -> DataError:
    return DataError(
        f"{place}: has {len(fields)} fields, the header has {width}; quote fields that hold {delimiter!r}, or set"
        " data.delimiter (predict --delimiter)"
    )


def _require_no_rows_inside(fields: list[str], place: str, last: int, delimiter: str, width: int) -> None:
    """Raises a DataError where a field holds lines that look like rows of the table: with as many delimiters."""
    for field in fields:
        inside = field.splitlines()[1:-1]
        if width > 1 and sum(line.count(delimiter) == width - 1 for line in inside) >= ROWS_IN_A_FIELD:
            raise DataError(
                f"{place} to {last}: one field holds {len(inside)} whole rows: a quote is opened and not closed; close or"
                " double it, set data.quoting: none if quotes are text like any other, or standard if the field is meant so"
                " (predict --quoting)"
            )
