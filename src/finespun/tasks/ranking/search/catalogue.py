"""The items that a model ranks, with their vectors: written beside the model, opened memory-mapped."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finespun.errors import ModelError

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from finespun.tasks.ranking.search.index import ItemIndex

FILE = "items.arrow"
VECTOR = "vector"


@dataclass(frozen=True)
class Catalogue:
    """Items in a fixed order: what they are called, and their vectors, (items, width)."""

    table: pa.Table  # `item`, what a person calls it, and what else is known of it
    vectors: NDArray[np.float32]
    folder: Path | None = None  # that they were read from

    @cached_property
    def names(self) -> list[str]:
        return [str(name) for name in self.table["item"].to_pylist()]

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Item -> its position."""
        return {name: place for place, name in enumerate(self.names)}

    def column(self, name: str) -> list[Any]:
        """Returns what is known of each item."""
        if name not in self._columns:
            self._columns[name] = self.table[name].to_pylist()
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        return {}

    @cached_property
    def tensor(self) -> torch.Tensor:
        """The vectors as torch sees them, not copied: nobody writes into the mapped file."""
        import torch  # noqa: PLC0415  (prepare imports this module and no torch)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*NumPy array is not writable.*")
            return torch.from_numpy(self.vectors)

    @cached_property
    def index(self) -> ItemIndex | None:
        """What finds the nearest of many items; None where each is compared with."""
        from finespun.tasks.ranking.search import index  # noqa: PLC0415  (imports torch)

        return index.opened(self.vectors, self.folder) if len(self.vectors) > index.EXACT else None

    def nearest(self, queries: torch.Tensor, count: int, *, without: list[torch.Tensor] | None = None) -> list[Any]:
        """Returns positions and scores of the nearest items, (2, count) a query."""
        from finespun.tasks.ranking.search.nearest import nearest  # noqa: PLC0415  (imports torch)

        if self.index is not None:
            scores, places = self.index.nearest(queries, count, without=without)
        else:
            scores, places = nearest(queries, self.tensor, count, without=without)
        return [*np.stack([places.cpu().numpy().astype(np.float64), scores.double().cpu().numpy()], axis=1)]

    def write(self, folder: Path) -> None:
        """Writes the items into a model's folder."""
        import pyarrow as pa  # noqa: PLC0415  (configure imports this module and no Arrow)

        values = pa.array(self.vectors.reshape(-1), pa.float32())
        whole = self.table.append_column(VECTOR, pa.FixedSizeListArray.from_arrays(values, self.vectors.shape[1]))
        with pa.OSFile(str(folder / FILE), "wb") as sink, pa.ipc.new_file(sink, whole.schema) as writer:
            writer.write_table(whole.combine_chunks())
        if self.index is not None:
            from finespun.tasks.ranking.search import index  # noqa: PLC0415

            self.index.write(folder / index.FILE)

    @classmethod
    def read(cls, folder: Path) -> Catalogue | None:
        """Opens the items of a model's folder; None where it has none.

        Raises:
            ModelError: the file is damaged.
        """
        import pyarrow as pa  # noqa: PLC0415

        path = folder / FILE
        if not path.is_file():
            return None
        try:
            whole = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            column = whole[VECTOR].combine_chunks()
            vectors = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
        except (OSError, pa.ArrowInvalid, KeyError, AttributeError, ValueError) as error:
            raise ModelError(f"{path}: holds no items that can be read ({error}); run `dvc repro --force finetune`") from error
        return cls(whole.drop_columns([VECTOR]), vectors, folder)


def stacked(vectors: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Returns vectors of single items as one array, (items, width)."""
    return np.stack(vectors).astype(np.float32)
