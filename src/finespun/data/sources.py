"""Reading and writing tables as streams of rows: CSV, JSON Lines, Parquet; reading CoNLL.

CSV is read as text by the standard library: nothing is guessed, "NA" stays "NA", "01" stays "01", and a row that is too
long or too short is an error with its line, not a shifted row.
"""

from __future__ import annotations

import csv
import json
import sys
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice, starmap
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from finespun.data import delimited, image_folder, json_lines, parquet
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
SAVE = "save it as one of them, or set data.format if only its name is another"
OTHER_ENDINGS = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip"), "unpack it"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save its sheet as CSV (UTF-8)"),
    ".json": f"one object a line is .jsonl; {json_lines.ARRAY}",
}
BEGINNINGS = {  # of files that are no text, whatever they are called
    b"\x1f\x8b": "a gzip file; unpack it",
    b"BZh": "a bzip2 file; unpack it",
    b"\xfd7zXZ": "an xz file; unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet; unpack it, or save its sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet or document; save its sheet as CSV (UTF-8)",
    b"PAR1": "a Parquet file; set data.format: parquet, or call it .parquet",
    b"ARROW1": "an Arrow file; write it as Parquet",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
}
READ_ONLY = {".conll": "conll", ".conllu": "conll", ".bio": "conll"}
OTHER_TABLES = {*FORMATS, *READ_ONLY, ".arrow", ".xlsx"}  # none of which is read where a folder is named


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
        return "parquet" if parquet.files(path) else "images"
    known = FORMATS if writing else FORMATS | READ_ONLY
    if path.suffix.lower() not in known:
        remedy = "choose one of them" if writing else OTHER_ENDINGS.get(path.suffix.lower(), SAVE)
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
        if file_format not in (None, "parquet", "images"):
            raise DataError(f"{path}: is a folder; data.format: {file_format} is one file; name it in data.path")
        yield from _read_folder(path, file_format)
        return
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path  # as messages say it
    kind = _require_table(path, file_format)
    if kind == "parquet":
        yield from starmap(Line, parquet.rows(path))
        return
    try:
        with path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="") as file:
            lines, name = _without_nul(file, path), str(path)
            if kind == "conll":
                yield from starmap(Line, sentences(lines, name))
            elif kind == "jsonl":
                yield from starmap(Line, json_lines.rows(lines, name))
            else:
                yield from starmap(Line, delimited.rows(lines, name, TABS.get(path.suffix.lower(), delimiter), quoting))
    except UnicodeError as error:
        raise _undecoded(path, encoding, error) from error
    except LookupError as error:
        raise DataError(f"{path}: data.encoding {encoding!r} does not exist; use for example utf-8 or latin-1") from error


def _undecoded(path: Path, encoding: str, error: UnicodeError) -> DataError:
    place, wrong = str(path), f"is not {encoding} ({error})"
    remedy = "save the file as UTF-8 or set data.encoding (predict --encoding)"
    if isinstance(error, UnicodeDecodeError):
        wrong = f"byte {error.object[error.start]:#04x} is not {encoding}"
        with path.open("rb") as file:
            if file.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE):
                remedy = "it begins as UTF-16 does: set data.encoding: utf-16 (predict --encoding), or save it as UTF-8"
    # Where the byte order mark is missing, no line can be told.
    with suppress(UnicodeError), path.open(encoding=encoding, errors="replace") as file:
        place += f":{next((number for number, line in enumerate(file, 1) if REPLACED in line), 1)}"
    return DataError(f"{place}: {wrong}; {remedy}")


def _without_nul(file: IO[str], path: Path) -> Iterator[str]:
    """Passes lines on.

    Raises:
        DataError: one holds a NUL character.
    """
    for number, line in enumerate(file, 1):
        if "\0" in line:
            many = line.count("\0") > len(line) // 4
            remedy = "set data.encoding: utf-16-le (predict --encoding)" if many and number == 1 else "remove it"
            raise DataError(f"{path}:{number}: holds a NUL character, which is no text; {remedy}, or save the file as UTF-8")
        yield line


def _read_folder(path: Path, file_format: str | None) -> Iterator[Line]:
    """Yields the rows of a folder of Parquet files, or of images; one that holds other tables too is neither."""
    parts = parquet.files(path) if file_format != "images" else []
    others = (each for each in image_folder.files(path) if each not in parts)
    odd = next((each for each in others if _is_odd(each, beside_tables=bool(parts))), None)
    if odd:
        raise DataError(
            f"{path}: holds {odd.relative_to(path)}; a folder is read that holds images alone, or .parquet files alone and no"
            " sub-folders; name one table in data.path"
        )
    parquet.require_alike(parts)
    given = (row for part in parts for _, row in parquet.rows(part)) if parts else map(dict, image_folder.rows(path))
    yield from starmap(Line, enumerate(given, 1))


def _is_odd(path: Path, *, beside_tables: bool) -> bool:
    return path.suffix.lower() in OTHER_TABLES or (beside_tables and image_folder.is_image(path))


def _require_table(path: Path, file_format: str | None) -> str:
    kind = format_of(path, file_format)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; put it there, or correct the path")
    if kind == "images":
        raise DataError(f"{path}: is a file; data.format: images is a folder of images; leave it out for a table of paths")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty (0 bytes); put your rows into it")
    if kind != "parquet":
        with path.open("rb") as file:
            begins = file.read(16)
        binary = next((what for beginning, what in BEGINNINGS.items() if begins.startswith(beginning)), None)
        if binary:
            raise DataError(f"{path}: is {binary}")
    return kind


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
