"""CSV and TSV as rows of text: nothing is guessed, and a quote or a delimiter in the wrong place is an error with its line.

What spreadsheets add is understood: a first line `sep=;`, and blank columns at the right.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from itertools import chain, zip_longest
from typing import Literal

from finespun.errors import DataError, first_of, listed

SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)
ROWS_IN_A_FIELD = 2  # a field that holds so many whole lines of the table has most likely a quote that was never closed
MOST_SEEN = 1000  # values of a column that are remembered, to know them again inside a field
QUOTING: dict[str, Literal[0, 3]] = {"auto": csv.QUOTE_MINIMAL, "standard": csv.QUOTE_MINIMAL, "none": csv.QUOTE_NONE}
REMEDY = (
    "quote the field, double quotes inside it, set data.quoting: none if quotes are text (predict --quoting), or set"
    " data.delimiter (predict --delimiter)"
)


def rows(
    lines: Iterator[str], name: str, delimiter: str, quoting: str, *, header: bool = True, lenient: bool = False
) -> Iterator[tuple[int, dict[str, str], str]]:
    """Yields the line where a row begins, its fields by column, and (if `lenient`) that it has too many or too few.

    Args:
        lines: of the file, with their ends.
        name: for messages.
        delimiter: between the fields; a line `sep=` above the header goes before it.
        quoting: `data.quoting`.
        header: whether the first line names the columns; without it they are called by their position, from 1.
        lenient: whether a row with too many or too few fields is passed on.

    Raises:
        DataError: the header or a row is not whole, or a quote seems to swallow rows.
    """
    csv.field_size_limit(sys.maxsize)
    first, before, said = _first_line(lines, name)
    delimiter = said or delimiter
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True, quoting=QUOTING[quoting])
    start = before + 1
    try:
        row = next(reader)
        names = _header(row, f"{name}:{start}") if header else [str(place) for place, _ in enumerate(row, 1)]
        width = len(names)
        swallowed = _Swallowed(delimiter, width)
        start = before + reader.line_num + 1 if header else start
        for fields in reader if header else chain([row], reader):
            last = before + reader.line_num
            if any(field.strip() for field in fields[width:]) or 0 < len(fields) < width:
                problem = f"has {len(fields)} fields, the {'header' if header else 'first row'} has {width}"
                if not lenient:
                    raise _wrong_width(problem, f"{name}:{start}", delimiter)
                yield start, dict(zip_longest(names, fields[:width], fillvalue="")), f"line {start}: {problem}"
            elif fields:
                if width > 1 and header and fields[:width] == names:
                    raise DataError(f"{name}:{start}: repeats the header, as where two files were joined; remove the line")
                if quoting == "auto":
                    swallowed.require_none(fields, f"{name}:{start} to {last}", several=last > start)
                yield start, dict(zip(names, fields, strict=False)), ""
            start = last + 1
    except csv.Error as error:
        last = before + reader.line_num
        place = f"{name}:{start}" if last <= start else f"{name}:{start} to {last}"
        why = "a quote is opened and never closed" if "end of data" in str(error) else str(error)
        raise DataError(f"{place}: is not CSV ({why}); {REMEDY}") from error


def _first_line(lines: Iterator[str], name: str) -> tuple[str, int, str | None]:
    """Returns the header's line, how many come before it, and the delimiter that one of them names."""
    said = None
    for before, line in enumerate(lines):
        plain = line.lstrip("\ufeff")  # a second byte order mark, of an editor that adds one to each file
        match = SEPARATOR_LINE.fullmatch(plain)
        if not match and plain.strip():
            return plain, before, said
        said = match[1] if match else said
    raise DataError(f"{name}: is empty; put your rows into it")


def _header(given: list[str], place: str) -> list[str]:
    """Returns the names of the columns, without blank ones at the right."""
    header = [column.strip() if column.isspace() else column for column in given]
    while header and not header[-1]:
        header.pop()
    unnamed = [str(position) for position, column in enumerate(header, 1) if not column]
    if len(unnamed) > 1:
        raise DataError(f"{place}: the columns {first_of(unnamed)} have no name; give each one, or remove them")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise DataError(f"{place}: the header names {listed(map(repr, twice))} twice; rename one")
    return header


def _wrong_width(problem: str, place: str, delimiter: str) -> DataError:
    return DataError(
        f"{place}: {problem}; quote fields that hold {delimiter!r}, or set data.delimiter (predict --delimiter)"
    )  # fmt: skip


class _Swallowed:
    """Knows a field that holds whole rows of the table, which a quote made part of it.

    Its lines divide as rows do: the first has the fields after its own, those inside have all, the last has those before.
    """

    def __init__(self, delimiter: str, width: int) -> None:
        self.delimiter, self.width = delimiter, width
        self.loose = re.compile(re.escape(delimiter) + r"(?:[ \t]|$)")  # as in sentences: followed by a space or nothing
        self.seen: list[set[str]] = [set() for _ in range(width)]

    def require_none(self, fields: list[str], place: str, *, several: bool) -> None:
        """Raises a DataError where one of a row's fields, which may stand on several lines, looks so."""
        if several and self.width > 1:
            for position, field in enumerate(fields[: self.width]):
                self._require(re.split(r"\r\n|\r|\n", field), position, place)
        for seen, field in zip(self.seen, fields, strict=False):
            if len(seen) < MOST_SEEN:
                seen.add(field)

    def _require(self, lines: list[str], position: int, place: str) -> None:
        parts = [line.split(self.delimiter) for line in lines]
        tight = [self.delimiter == "\t" or not self.loose.search(line) for line in lines]
        whole = [part for part, good in zip(parts[1:-1], tight[1:-1], strict=True) if good and len(part) == self.width]
        fits = len(parts) > 1 and all(tight) and len(whole) == len([line for line in lines[1:-1] if line])
        fits = fits and len(parts[0]) == self.width - position and len(parts[-1]) == position + 1
        known = [*zip(self.seen[position + 1 :], parts[0][1:], strict=False), *zip(self.seen, parts[-1][:-1], strict=False)]
        known += [pair for part in whole for pair in zip(self.seen, part, strict=True)]
        if len(whole) >= ROWS_IN_A_FIELD or (fits and any(value and value in seen for seen, value in known)):
            raise DataError(
                f"{place}: one field holds {len(whole)} whole rows and the ends of two: a quote is opened and not closed; close"
                " or double it, set data.quoting: none if quotes are text like any other, or standard if the field is meant so"
                " (predict --quoting)"
            )
