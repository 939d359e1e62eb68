"""Writing tables as rows come: CSV that no spreadsheet takes for formulas, JSON Lines, Parquet."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from finespun.data.cells import NUMBER
from finespun.data.sources.tables import TABS, Row, chunks, format_of
from finespun.errors import BusyError, DataError, listed
from finespun.failures import while_writing

if TYPE_CHECKING:
    import pyarrow as pa

FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # also in their wide forms


class CsvWriter:
    """Writes CSV for people: a text that a spreadsheet would take for a formula gets an apostrophe before it.

    Numbers stay as they are, lists and objects are JSON. `docs/data.md` says how to take the apostrophes off again.
    """

    def __init__(self, file: IO[str], delimiter: str = ",") -> None:
        self.file = file
        self.csv = csv.writer(
            self, delimiter=delimiter, lineterminator="\r\n"
        )  # so it quotes a lone \r, a line's end to readers

    def write(self, line: str) -> None:
        """Takes a line of the csv module, with two characters at its end."""
        self.file.write(line[:-2] + "\n")

    def row(self, values: Iterable[Any]) -> None:
        """Writes one row."""
        self.csv.writerow([_as_cell(value) for value in values])

    def rows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Writes several."""
        for values in rows:
            self.row(values)


def _as_cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return _as_json(value)
    starts_formula = isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value)
    return f"'{value}" if starts_formula else value


def require_writable(path: Path, *, source: Path, also: Sequence[str] = ()) -> None:
    """Checks what can be known before rows are read and predicted.

    Raises:
        DataError: a file cannot be written there, or it is the one that is read.
    """
    if str(path) == "-":
        return
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file, such as {path / 'predictions.csv'}")
    if path.suffix not in also:
        format_of(path, writing=True)
    if path.exists() and source.exists() and path.samefile(source):
        raise DataError(f"{path}: is the input itself; name another file for the output")
    place = next(parent for parent in path.absolute().parents if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "no permission to write there" if place.is_dir() else "is a file, not a folder"
        raise DataError(f"{path}: cannot be written ({place}: {why}); name a file elsewhere")


def write(rows: Iterable[Row], path: Path, *, like: Sequence[Row] = ()) -> int:
    """Writes rows as they come, in the format of the path's ending; `-` is CSV on standard output. Returns their number.

    A file appears whole or not at all. `like` are rows that tell columns, and the types of those that are empty at first;
    they may be added while `rows` are taken.

    Raises:
        DataError: there are no rows, or they do not make a table.
        BusyError: another process writes the same file.
    """
    if str(path) == "-":
        return _write_text(_alike(rows, path, like), sys.stdout, "csv")
    kind = format_of(path, writing=True)
    rows = rows if kind == "jsonl" else _alike(rows, path, like)
    with _whole(path) as partial:
        return _write(rows, partial, kind, path, like)


def write_json(value: Any, path: Path) -> None:
    """Writes one JSON value; the file appears whole or not at all.

    Raises:
        BusyError: another process writes the same file.
    """
    with _whole(path) as partial:
        partial.write_text(_as_json(value) + "\n", encoding="utf-8")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Gives a path to write to that becomes `path` at the end, unless that fails."""
    target = Path(os.path.realpath(path))  # a link stays one
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")  # no data to whoever lists the folder
    with partial.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{path}: another process is writing it; wait for its end, or name another file") from error
        try:
            with while_writing(path):
                yield partial
                partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def _write(rows: Iterable[Row], partial: Path, kind: str, path: Path, like: Sequence[Row]) -> int:
    if kind == "parquet":
        count = _write_parquet(rows, partial, like, str(path))
    else:
        with partial.open("w", encoding="utf-8", newline="") as file:
            count = _write_text(rows, file, kind, TABS.get(path.suffix.lower(), ","))
    if not count:
        raise DataError(f"{path}: nothing is written, for there were no rows; look at the input")
    return count


def _alike(rows: Iterable[Row], path: Path, like: Sequence[Row]) -> Iterator[Row]:
    """Passes rows on; a table has the columns of `like`, or of its first row.

    Raises:
        DataError: a later row has others.
    """
    columns: list[str] | None = None
    for number, row in enumerate(rows, 1):
        columns = columns or list(like[0] if like else row)
        if not row.keys() <= set(columns):
            extra = listed(row.keys() - set(columns))
            raise DataError(f"{path}: row {number} has the column {extra}, which the first has not; write to .jsonl instead")
        yield {column: row.get(column) for column in columns}


def _write_text(rows: Iterable[Row], file: IO[str], kind: str, delimiter: str = ",") -> int:
    """Writes JSON a line, or CSV with lists and objects as JSON."""
    count, writer = 0, CsvWriter(file, delimiter)
    for count, row in enumerate(rows, 1):
        if kind == "jsonl":
            file.write(_as_json(row) + "\n")
            continue
        if count == 1:
            writer.row(row)
        writer.row(row.values())
    return count


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _write_parquet(rows: Iterable[Row], path: Path, like: Sequence[Row], name: str) -> int:
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
                    f"{name}: rows {count + 1} to {count + len(chunk)} do not fit those before: {reason}"
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
