"""PreparedData: what `prepare` wrote, opened memory-mapped, one split at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finespun.errors import DataError
from finespun.files import read_json

REMEDY = "run `dvc repro --force prepare`"


@dataclass(frozen=True)
class PreparedData:
    """The folder of `prepare`: `train.arrow`, `val.arrow`, `test.arrow`, `schema.json`, `profile.json`."""

    folder: Path

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

    def examples(self, split: str, count: int) -> pa.Table:
        """Returns the first rows of a split, no two of the same row of the user's (which may have become several)."""
        table = self.open(split)
        first = np.flatnonzero(np.diff(table["row"].to_numpy(), prepend=-1))[:count]
        return pa.concat_tables(table.slice(int(position), 1) for position in first)
