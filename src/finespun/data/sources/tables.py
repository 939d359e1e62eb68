"""Reading tables as streams of rows: CSV, JSON, JSON Lines, Parquet, Arrow, CoNLL; packed or not, here or at an address.

CSV is read as text by the standard library: nothing is guessed, "NA" stays "NA", "01" stays "01", and a row that is too
long or too short is an error with its line, not a shifted row.
"""

from __future__ import annotations

import io
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, starmap
from pathlib import Path
from typing import IO, Any, TypeVar

from finespun.data.sources import arrow, delimited, image_folder, json_file, json_lines, parquet
from finespun.data.sources.annotations import coco, csv_of_boxes, voc, yolo
from finespun.data.sources.conll import sentences
from finespun.data.sources.opening import beginning, is_remote, known_endings, opened, require_there, suffix
from finespun.errors import DataError, listed

Row = dict[str, Any]
T = TypeVar("T")
CHUNK = 4096
FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
REPLACED = "\N{REPLACEMENT CHARACTER}"  # what stands for a byte that cannot be decoded
TABS = {".tsv": "\t"}
SAVE = "save it as one of them, or set data.format (predict --format) if only its name is another"
OTHER_ENDINGS = dict.fromkeys((".xlsx", ".xls", ".ods"), "save its sheet as CSV (UTF-8)")
PACKED = "call it so, or unpack it"
BEGINNINGS = {  # of files that are no text, whatever they are called
    b"\x1f\x8b": f"a gzip file (.gz); {PACKED}",
    b"BZh": f"a bzip2 file (.bz2); {PACKED}",
    b"\xfd7zXZ": f"an xz file (.xz); {PACKED}",
    b"\x28\xb5\x2f\xfd": f"a zstd file (.zst); {PACKED}",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet; call it .zip, or save its sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet or document; save its sheet as CSV (UTF-8)",
    b"PAR1": "a Parquet file; set data.format: parquet, or call it .parquet",
    b"ARROW1": "an Arrow file; set data.format: arrow, or call it .arrow",
    b"SQLite format 3": "an SQLite database; set data.path: sqlite:///FILE and data.sql: SELECT ...",
}
READ_ONLY = {".conll": "conll", ".conllu": "conll", ".bio": "conll", ".json": "json", ".arrow": "arrow", ".feather": "arrow"}
ANNOTATED: dict[str, Callable[[Path], Iterator[Row]]] = {"voc": voc.rows, "yolo": yolo.rows}  # folders
BINARY = {"parquet", "arrow"}
OTHER_TABLES = {*FORMATS, *READ_ONLY, ".xlsx"} - {".json"}  # of none is read where a folder is named; notes lie beside images


@dataclass(frozen=True)
class Line:
    """One row and its place: the line of a text file, the row number of a Parquet file, both from 1.

    `error` says why a row cannot be read, where that does not end reading (`read`, `lenient`).
    """

    number: int
    row: Row
    error: str = ""


def format_of(path: Path | str, given: str | None = None, *, writing: bool = False) -> str:
    """Returns csv, jsonl, parquet or, unless it is to be written, conll, json, arrow, or images or arrow for a folder.

    Raises:
        DataError: the file's ending names none of them.
    """
    if given:
        return given
    if not writing and not is_remote(str(path)) and Path(path).is_dir():
        folder = Path(path)
        return "arrow" if arrow.is_saved(folder) else "parquet" if parquet.files(folder) else "images"
    known = FORMATS if writing else FORMATS | READ_ONLY
    ending = Path(path).suffix.lower() if writing else suffix(str(path))
    if ending not in known:
        remedy = "choose one of them" if writing else OTHER_ENDINGS.get(ending, SAVE)
        allowed = listed(known) if writing else known_endings([*known])
        raise DataError(f"{path}: the ending {Path(path).suffix!r} is not one of {allowed}; {remedy}")
    return known[ending]


def read(
    path: Path | str, *, file_format: str | None = None, delimiter: str | None = None, encoding: str | None = None,
    quoting: str = "auto", header: bool = True, lenient: bool = False,
) -> Iterator[Line]:  # fmt: skip
    """Yields a file's rows in order, never holding more than a chunk of them; of a folder of Parquet files, those of all.

    With `lenient`, a line of JSON Lines or a row of a CSV that cannot be read is one with an `error`. `path` may be an address.

    Raises:
        DataError: the file is missing, empty, in another encoding, or a row does not fit the header.
    """
    if not is_remote(str(path)) and Path(path).is_dir():
        if file_format in ANNOTATED:
            yield from starmap(Line, enumerate(ANNOTATED[file_format](Path(path)), 1))
            return
        if file_format not in (None, "parquet", "images", "arrow"):
            raise DataError(f"{path}: is a folder; data.format: {file_format} is one file; name it in data.path")
        yield from _read_folder(Path(path), file_format, encoding)
        return
    name = shown(path)
    kind = _require_table(name, file_format)
    if kind in BINARY:
        yield from starmap(Line, parquet.rows(name) if kind == "parquet" else arrow.rows(name))
        return
    encoding = encoding or "utf-8"
    try:
        with opened(name) as binary, io.TextIOWrapper(
            binary, encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline=""
        ) as file:  # fmt: skip
            options = {"delimiter": delimiter or TABS.get(suffix(name), ","), "quoting": quoting, "header": header}
            yield from starmap(Line, _text_rows(file, name, kind, lenient=lenient, **options))
    except UnicodeError as error:
        raise _undecoded(name, encoding, error) from error
    except LookupError as error:
        raise DataError(f"{name}: data.encoding {encoding!r} does not exist; use for example utf-8 or latin-1") from error


def _text_rows(file: IO[str], name: str, kind: str, *, lenient: bool, **options: Any) -> Iterator[tuple[Any, ...]]:
    if kind == "coco":
        return coco.rows(file.read(), name)
    if kind == "json":
        return json_file.rows(file, name)
    lines = _without_nul(file, name)
    if kind == "conll":
        return sentences(lines, name)
    if kind == "jsonl":
        return json_lines.rows(lines, name, lenient=lenient)
    rows = delimited.rows(lines, name, lenient=lenient, **options)
    return csv_of_boxes.grouped(rows, name) if kind == "csv_of_boxes" else rows


def shown(path: Path | str) -> str:
    """Returns a path as messages say it: relative to where we are, if it lies there."""
    local = not is_remote(str(path)) and Path(path).is_relative_to(Path.cwd())
    return str(Path(path).relative_to(Path.cwd())) if local else str(path)


def _undecoded(name: str, encoding: str, error: UnicodeError) -> DataError:
    place, wrong = name, f"is not {encoding} ({error})"
    remedy = "save the file as UTF-8 or set data.encoding (predict --encoding)"
    if isinstance(error, UnicodeDecodeError):
        wrong = f"byte {error.object[error.start]:#04x} is not {encoding}"
        if beginning(name, 2)[0] in (BOM_UTF16_LE, BOM_UTF16_BE):
            remedy = "it begins as UTF-16 does: set data.encoding: utf-16 (predict --encoding), or save it as UTF-8"
    # Where the byte order mark is missing, no line can be named.
    with suppress(UnicodeError), opened(name) as binary, io.TextIOWrapper(binary, encoding, errors="replace") as file:
        place += f":{next((number for number, line in enumerate(file, 1) if REPLACED in line), 1)}"
    return DataError(f"{place}: {wrong}; {remedy}")


def _without_nul(file: IO[str], path: str) -> Iterator[str]:
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


def _read_folder(path: Path, file_format: str | None, encoding: str | None) -> Iterator[Line]:
    """Yields the rows of a folder of Parquet files, of images, or of texts; one that holds other tables too is neither."""
    if file_format in (None, "arrow") and arrow.is_saved(path):
        names = [name for files in arrow.saved(path).values() for name in files]
        yield from starmap(Line, enumerate((row for name in names for _, row in arrow.rows(name)), 1))
        return
    parts = parquet.files(path) if file_format != "images" else []
    others = (each for each in image_folder.files(path) if each not in parts)
    odd = next((each for each in others if _is_odd(each, beside_tables=bool(parts))), None)
    if odd:
        raise DataError(
            f"{path}: holds {odd.relative_to(path)}; a folder is read that holds images alone, or .parquet files alone and no"
            " sub-folders; name one table in data.path"
        )
    parquet.require_alike(parts)
    given = (
        (row for part in parts for _, row in parquet.rows(str(part))) if parts else map(dict, image_folder.rows(path, encoding))
    )
    yield from starmap(Line, enumerate(given, 1))


def _is_odd(path: Path, *, beside_tables: bool) -> bool:
    return path.suffix.lower() in OTHER_TABLES or (beside_tables and image_folder.is_image(path))


def _require_table(name: str, file_format: str | None) -> str:
    kind = format_of(name, file_format)
    require_there(name)
    if kind == "images" or kind in ANNOTATED:
        raise DataError(f"{name}: is a file; data.format: {kind} is a folder of images; leave it out for a table of paths")
    if kind not in BINARY:
        begins, _ = beginning(name, 16)
        binary = next((what for start, what in BEGINNINGS.items() if begins.startswith(start)), None)
        if binary:
            raise DataError(f"{name}: is {binary}")
    return kind


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yields lists of at most `size` items, in order."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
