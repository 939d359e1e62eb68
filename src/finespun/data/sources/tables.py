"""Reading tables as streams of rows: CSV, JSON Lines, Parquet, CoNLL.

CSV is read as text by the standard library: nothing is guessed, "NA" stays "NA", "01" stays "01", and a row that is too
long or too short is an error with its line, not a shifted row.
"""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, starmap
from pathlib import Path
from typing import IO, Any, TypeVar

from finespun.data.sources import boxes, delimited, image_folder, json_lines, parquet
from finespun.data.sources.conll import sentences
from finespun.errors import DataError, listed

Row = dict[str, Any]
T = TypeVar("T")
CHUNK = 4096
FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
REPLACED = "\N{REPLACEMENT CHARACTER}"  # what stands for a byte that cannot be decoded
TABS = {".tsv": "\t"}
SAVE = "save it as one of them, or set data.format (predict --format) if only its name is another"
OTHER_ENDINGS = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip"), "unpack it"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save its sheet as CSV (UTF-8)"),
    ".json": f"one object a line is .jsonl; {json_lines.ARRAY}; COCO's annotations of images: set data.format: coco",
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
    """One row and its place: the line of a text file, the row number of a Parquet file, both from 1.

    `error` says why a row cannot be read, where that does not end reading (`read`, `lenient`).
    """

    number: int
    row: Row
    error: str = ""


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
    path: Path, *, file_format: str | None = None, delimiter: str = ",", encoding: str = "utf-8", quoting: str = "auto",
    lenient: bool = False,
) -> Iterator[Line]:  # fmt: skip
    """Yields a file's rows in order, never holding more than a chunk of them; of a folder of Parquet files, those of all.

    With `lenient`, a line of JSON Lines or a row of a CSV that cannot be read is one with an `error`.

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
            divider = TABS.get(path.suffix.lower(), delimiter)
            yield from starmap(Line, _text_rows(kind, file, path, divider, quoting, lenient=lenient))
    except UnicodeError as error:
        raise _undecoded(path, encoding, error) from error
    except LookupError as error:
        raise DataError(f"{path}: data.encoding {encoding!r} does not exist; use for example utf-8 or latin-1") from error


def _text_rows(
    kind: str, file: IO[str], path: Path, delimiter: str, quoting: str, *, lenient: bool
) -> Iterator[tuple[Any, ...]]:  # fmt: skip
    """Yields what lines are made of: number, row and, where reading is lenient, an error."""
    lines, name = _without_nul(file, path), str(path)
    if kind == "conll":
        yield from sentences(lines, name)
    elif kind == "coco":
        yield from boxes.coco("".join(lines), name)
    elif kind == "jsonl":
        yield from json_lines.rows(lines, name, lenient=lenient)
    else:
        rows = delimited.rows(lines, name, delimiter, quoting, lenient=lenient)
        yield from boxes.grouped(rows, name) if kind == "csv_of_boxes" else rows


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


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yields lists of at most `size` items, in order."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
