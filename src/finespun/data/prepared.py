"""PreparedData: what `prepare` wrote, opened memory-mapped, one split at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from finespun.errors import DataError
from finespun.files import read_json
from finespun.kept import damage

ITEMS = "items"  # what a ranking is of, prepared beside the splits; without rows where a task ranks nothing
REMEDY = "run `dvc repro --force prepare`"


@dataclass(frozen=True)
class PreparedData:
    """The folder of `prepare`: `train.arrow`, `val.arrow`, `test.arrow`, `schema.json`, `profile.json`."""

    folder: Path

    def verified(self, *splits: str) -> Self:
        """Makes sure that the schema and some splits are what `prepare` wrote.

        Raises:
            DataError: a file is not there, cut short or changed.
        """
        reason = damage(self.folder, "schema.json", *(self.path(split).name for split in splits))
        if reason:
            raise DataError(f"{self.folder}: is not what `prepare` wrote ({reason}); {REMEDY}")
        return self

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Columns, labels, counts, digests and the settings that made the data."""
        return read_json(self.folder / "schema.json", error=DataError, remedy=REMEDY, keys=("labels",))

    @property
    def labels(self) -> list[str]:
        return list(self.schema["labels"])

    def path(self, split: str) -> Path:
        """The Arrow file of a split."""
        return self.folder / f"{split}.arrow"

    def open(self, split: str) -> pa.Table:
        """Opens a split without reading it into memory.

        Raises:
            DataError: the file is missing or is not Arrow.
        """
        path = self.path(split)
        try:
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path}: cannot be opened ({error}); {REMEDY}") from error

    def telling(self, split: str) -> pa.Table:
        """Returns rows that show whether a model can compute a split: the longest, the shortest, those of the largest ids."""
        table = self.open(split)
        lengths = table["length"].to_numpy()
        rows = {0, int(lengths.argmax()), int(lengths.argmin())}
        for name in ("input_ids", "token_type_ids"):
            if name in table.column_names:
                rows.add(_row_of_largest(table[name]))
        return pa.concat_tables(table.slice(row, 1) for row in sorted(rows))

    def examples(self, split: str, count: int) -> pa.Table:
        """Returns the first rows of a split, no two of the same row of the user's (which may have become several)."""
        table = self.open(split)
        first = np.flatnonzero(np.diff(table["row"].to_numpy(), prepend=-1))[:count]
        return pa.concat_tables(table.slice(int(position), 1) for position in first)


def _row_of_largest(lists: pa.ChunkedArray) -> int:
    """Returns the row that holds the largest of all numbers."""
    found, largest, start = 0, -1, 0
    for chunk in lists.chunks:
        values = chunk.flatten().to_numpy()
        if len(values) and values.max() > largest:
            largest, offsets = values.max(), chunk.offsets.to_numpy()
            found = start + int(np.searchsorted(offsets - offsets[0], values.argmax(), side="right")) - 1
        start += len(chunk)
    return found
