"""Parquet as rows: of one file, or of a folder of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        columns[path] = set(_opened(path).schema_arrow.names)
        if columns[path] != columns[paths[0]]:
            have, first = listed(columns[path]), listed(columns[paths[0]])
            raise DataError(f"{path}: has the columns {have}, and {paths[0].name} has {first}; name them alike")


def _opened(path: Path) -> pq.ParquetFile:
    import pyarrow as pa  # noqa: PLC0415  (0.3 s that text files need not pay)
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: is not Parquet ({str(error).splitlines()[0]}); write it again") from error


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number of each row, from 1, and its values by column.

    Raises:
        DataError: the file is damaged, or names a column twice.
    """
    import pyarrow as pa  # noqa: PLC0415

    number = 0
    try:
        with _opened(path) as file:
            names = file.schema_arrow.names
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise DataError(f"{path}: has two columns called {listed(map(repr, twice))}; rename one")
            for batch in file.iter_batches(batch_size=CHUNK):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: row {number + 1} or one after it is damaged ({reason}); write it again") from error
