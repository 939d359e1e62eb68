"""Reading and writing tables as streams of rows: CSV, JSON Lines, Parquet; reading CoNLL.

CSV is read as text by the standard library: nothing is guessed, "NA" stays "NA", "01" stays "01", and a row that is too
long or too short is an error with its line, not a shifted row.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from finespun.data import delimited, image_folder
from finespun.data.conll import sentences
from finespun.errors import DataError, listed

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
T = TypeVar("T")
CHUNK = 4096
FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
REPLACED = "\N{REPLACEMENT CHARACTER}"  # what stands for a byte that cannot be decoded
TABS = {".tsv": "\t"}
READ_ONLY = {".conll": "conll", ".conllu": "conll", ".bio": "conll"}


@dataclass(frozen=True)
class Line:
    """One row and its place: the line of a text file, the row number of a Parquet file, both from 1."""

    number: int
    row: Row


def format_of(path: Path, given: str | None = None, *, writing: bool = False) -> str:
    """Returns csv, jsonl, parquet or, unless it is to be written, conll, or images for a folder.

    Raises:
        DataError: the file's ending names none of them.
    """
    if given:
        return given
    if path.is_dir() and not writing:
        return "parquet" if any(path.glob("*.parquet")) else "images"
    known = FORMATS if writing else FORMATS | READ_ONLY
    if path.suffix.lower() not in known:
        remedy = "choose one of them" if writing else "save it as one of them, or set data.format if only its name is another"
        raise DataError(f"{path}: the ending {path.suffix!r} is not one of {listed(known)}; {remedy}")
    return known[path.suffix.lower()]


def read(
    path: Path, *, file_format: str | None = None, delimiter: str = ",", encoding: str = "utf-8", quoting: str = "auto"
) -> Iterator[Line]:
    """Yields a file's rows in order, never holding more than a chunk of them; of a folder of Parquet files, those of all.

    Raises:
        DataError: the file is missing, empty, in another encoding, or a row does not fit the header.
    """
    if path.is_dir():
        yield from _read_folder(path, file_format)
        return
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path  # as messages say it
    kind = _require_table(path, file_format)
    if kind == "parquet":
        yield from _read_parquet(path)
        return
    try:
        with path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="") as file:
            if kind == "conll":
                yield from (Line(number, row) for number, row in sentences(file, str(path)))
                return
            divider = TABS.get(path.suffix.lower(), delimiter)
            given = delimited.rows(file, str(path), divider, quoting) if kind == "csv" else _read_jsonl(file, str(path))
            yield from (Line(*each) for each in given)
    except UnicodeError as error:
        place, wrong = str(path), f"is not {encoding} ({error})"
        if isinstance(error, UnicodeDecodeError):
            wrong = f"byte {error.object[error.start]:#04x} is not {encoding}"
        # Where the byte order mark is missing, no line can be told.
        with suppress(UnicodeError), path.open(encoding=encoding, errors="replace") as file:
            place += f":{next((number for number, line in enumerate(file, 1) if REPLACED in line), 1)}"
        raise DataError(f"{place}: {wrong}; save the file as UTF-8 or set data.encoding (predict --encoding)") from error
    except LookupError as error:
        raise DataError(f"{path}: data.encoding {encoding!r} does not exist; use for example utf-8 or latin-1") from error


def _read_folder(path: Path, file_format: str | None) -> Iterator[Line]:
    parts = sorted(path.glob("*.parquet")) if file_format != "images" else []
    given = (line.row for part in parts for line in _read_parquet(part)) if parts else map(dict, image_folder.rows(path))
    yield from (Line(number, row) for number, row in enumerate(given, 1))


def _require_table(path: Path, file_format: str | None) -> str:
    kind = format_of(path, file_format)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; put it there, or correct the path")
    if kind == "images":
        raise DataError(f"{path}: is a file; data.format: images is a folder of images; leave it out for a table of paths")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty (0 bytes); put your rows into it")
    return kind


def _read_jsonl(file: IO[str], name: str) -> Iterator[tuple[int, Row]]:
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            if "\\ud" in text.lower():  # half a character: where its other half is missing, it is none
                _as_json(row).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start : error.end]
            raise DataError(f"{name}:{number}: {half!r} is half a character; remove it, or write its other half") from error
        except json.JSONDecodeError as error:
            raise DataError(f"{name}:{number}: is not JSON ({error.msg} at column {error.colno}); one object a line") from error
        if not isinstance(row, dict):
            raise DataError(f'{name}:{number}: holds {type(row).__name__}, not an object; write {{"column": value, ...}}')
        yield number, row


def _read_parquet(path: Path) -> Iterator[Line]:
    import pyarrow as pa  # noqa: PLC0415  (0.3 s that text files need not pay)
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: is not Parquet ({str(error).splitlines()[0]}); write it again") from error
    number = 0
    with file:
        for batch in file.iter_batches(batch_size=CHUNK):
            for row in batch.to_pylist():
                number += 1
                yield Line(number, row)


def write(rows: Iterable[Row], path: Path, *, like: Sequence[Row] = ()) -> int:
    """Writes rows as they come, in the format of the path's ending; `-` is CSV on standard output. Returns their number.

    A file appears whole or not at all. `like` are rows that tell the types of columns that are empty at first; they may be
    added while `rows` are taken.

    Raises:
        DataError: there are no rows, or they do not make a table.
    """
    if str(path) == "-":
        return _write_text(_alike(rows, path), sys.stdout, "csv")
    kind = format_of(path, writing=True)
    rows = rows if kind == "jsonl" else _alike(rows, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        if kind == "parquet":
            count = _write_parquet(rows, partial, like)
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                count = _write_text(rows, file, kind, TABS.get(path.suffix.lower(), ","))
        if not count:
            raise DataError(f"{path}: nothing is written, for there were no rows; look at the input")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _alike(rows: Iterable[Row], path: Path) -> Iterator[Row]:
    """Passes rows on; a table has the columns of its first row.

    Raises:
        DataError: a later row has others.
    """
    columns: list[str] | None = None
    for number, row in enumerate(rows, 1):
        columns = columns or list(row)
        if not row.keys() <= set(columns):
            extra = listed(row.keys() - set(columns))
            raise DataError(f"{path}: row {number} has the column {extra}, which the first has not; write to .jsonl instead")
        yield {column: row.get(column) for column in columns}


def _write_text(rows: Iterable[Row], file: IO[str], kind: str, delimiter: str = ",") -> int:
    """Writes JSON a line, or CSV with lists and objects as JSON."""
    count, writer = 0, csv.writer(file, delimiter=delimiter, lineterminator="\n")
    for count, row in enumerate(rows, 1):
        if kind == "jsonl":
            file.write(_as_json(row) + "\n")
            continue
        if count == 1:
            writer.writerow(row)
        writer.writerow(_as_json(value) if isinstance(value, list | dict) else value for value in row.values())
    return count


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _write_parquet(rows: Iterable[Row], path: Path, like: Sequence[Row]) -> int:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    count = 0
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for chunk in chunks(rows):
            try:
                table = _as_table(chunk, like, writer.schema if writer else None)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                reason = f"{str(error).splitlines()[0]}; write to .jsonl instead"
                raise DataError(
                    f"{path.stem}: rows {count + 1} to {count + len(chunk)} do not fit those before: {reason}"
                ) from error
            writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table)
            count += table.num_rows
    return count


def _as_table(rows: Sequence[Row], like: Sequence[Row], schema: pa.Schema | None) -> pa.Table:
    """Returns rows as a table; with a schema, pyarrow itself would leave out keys of objects that it does not know.

    Raises:
        ArrowTypeError, ArrowInvalid: the rows do not fit each other or the schema.
    """
    import pyarrow as pa  # noqa: PLC0415

    found = pa.Table.from_pylist([*rows, *like]).schema
    schema = schema or found
    wider = pa.unify_schemas([schema, found], promote_options="permissive")
    new = [field.name for field in wider if field != schema.field(field.name)]
    if new:
        raise pa.ArrowTypeError(f"{listed(new)} holds what no row before had")
    return pa.Table.from_pylist(rows, schema=schema)


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yields lists of at most `size` items, in order."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
