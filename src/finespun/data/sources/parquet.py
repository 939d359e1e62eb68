"""Parquet as rows: of one file, or of a folder of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finespun.data.sources.arrow import class_names, named
from finespun.data.sources.opening import is_plain, opened
from finespun.errors import DataError, listed

if TYPE_CHECKING:
    import pyarrow.parquet as pq

CHUNK = 4096  # rows that are in memory at once


def files(folder: Path) -> list[Path]:
    """Returns the Parquet files of a folder in the order of their names."""
    return sorted(path for path in folder.glob("*.parquet") if path.is_file())


def require_alike(paths: Sequence[Path]) -> None:
    """Checks that files have the columns of the first.

    Raises:
        DataError: one has others.
    """
    columns: dict[Path, set[str]] = {}
    for path in paths:
        with _opened(str(path)) as file:
            columns[path] = set(file.schema_arrow.names)
        if columns[path] != columns[paths[0]]:
            have, first = listed(columns[path]), listed(columns[paths[0]])
            raise DataError(f"{path}: has the columns {have}, and {paths[0].name} has {first}; name them alike")


@contextmanager
def _opened(name: str) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa  # noqa: PLC0415  (0.3 s that text files need not pay)
    import pyarrow.parquet as pq  # noqa: PLC0415

    with opened(name) as raw:
        try:
            file = pq.ParquetFile(name if is_plain(name) else raw)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{name}: is not Parquet ({str(error).splitlines()[0]}); write it again") from error
        with file:
            yield file


def rows(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number of each row, from 1, and its values by column; class labels of `datasets` by their names.

    Raises:
        DataError: the file is damaged, or names a column twice.
    """
    import pyarrow as pa  # noqa: PLC0415

    number = 0
    try:
        with _opened(name) as file:
            names = file.schema_arrow.names
            twice = {column for column in names if names.count(column) > 1}
            if twice:
                raise DataError(f"{name}: has two columns called {listed(map(repr, twice))}; rename one")
            classes = class_names(file.schema_arrow.metadata)
            for batch in file.iter_batches(batch_size=CHUNK):
                for row in batch.to_pylist():
                    number += 1
                    yield number, named(row, classes) if classes else row
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{name}: row {number + 1} or one after it is damaged ({reason}); write it again") from error
