"""From Arrow to tensors: the loader that Lightning iterates, which knows where to take up an epoch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from finespun.data.batches import Batches, Part
from finespun.errors import DataError
from finespun.tasks.base import Batch, Encoder, Task


class Rows(Dataset[Batch]):
    """A split whose items are whole batches: `rows[part]` reads, pads and returns them."""

    def __init__(
        self, table: pa.Table, task: Task, encoder: Encoder, row_weights: NDArray[np.float64] | None = None,
        counts: NDArray[np.float64] | None = None,
    ) -> None:  # fmt: skip
        """`row_weights` (rows,) says how much each row counts in the gradient, `counts` (rows,) what its loss is a mean over.

        None: all the same, one.
        """
        self.task, self.encoder, self.row_weights, self.counts = task, encoder, row_weights, counts
        self.reader = RowReader(table.select([name for name in (*task.model_columns, "target") if name in table.column_names]))

    def __getitem__(self, part: Part) -> Batch:
        inputs, targets = self.task.collate(self.reader.take(part.rows), self.encoder)
        assert targets is not None, "prepared rows have answers"
        weights = np.full(len(part.rows), part.weight)
        for each in (self.row_weights, self.counts):
            if each is not None:
                weights *= each[part.rows]
        weights[part.counted :] = 0.0
        rows = torch.from_numpy(np.ascontiguousarray(part.rows))
        return Batch(inputs, targets, rows, torch.from_numpy(weights.astype(np.float32)), part.counted)


class BatchLoader(DataLoader[Batch]):
    """A DataLoader of whole batches that can say and be told its position (Lightning saves it with the loops)."""

    def __init__(self, rows: Any, batches: Batches, *, num_workers: int = 0, pin_memory: bool = False) -> None:
        super().__init__(
            rows,
            sampler=batches,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=num_workers,
            pin_memory=pin_memory,
            multiprocessing_context="fork"
            if num_workers and sys.platform == "linux"
            else None,  # a mapped table is not pickled
        )
        self.rows, self.batches = rows, batches
        self.position = {"epoch": 0, "batch": 0}

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch declares its own iterator
        if self.num_workers or self.pin_memory:
            return _said_plainly(super().__iter__())
        return map(self.rows.__getitem__, self.batches)

    def with_rows(self, rows: Dataset[Batch]) -> BatchLoader:
        """The same batches of the same rows, given in another way."""
        return BatchLoader(rows, self.batches, num_workers=self.num_workers, pin_memory=self.pin_memory)

    def state_dict(self) -> dict[str, int]:
        """Where training stands: set by the training loop, since a loader with workers runs ahead of it."""
        return dict(self.position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration begins at `state`."""
        self.batches.resume_at(state["epoch"], state["batch"])


def _said_plainly(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Takes off the traceback that torch puts before what a worker says of bad data."""
    try:
        yield from batches
    except DataError as error:
        raise DataError(str(error).rstrip().splitlines()[-1].rpartition("DataError: ")[2]) from error


def _as_it_is(batch: Any) -> Any:
    return batch  # torch's own would walk through it, looking for arrays


class RowReader:
    """Reads some rows of a memory-mapped table and touches no others: Arrow's own `take` copies all chunks together first."""

    def __init__(self, table: pa.Table) -> None:
        chunks = table.to_batches()
        self.starts = np.cumsum([0, *(chunk.num_rows for chunk in chunks)])
        self.readers = {name: [_reader(chunk[name]) for chunk in chunks] for name in table.column_names}

    def take(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """Returns the values of each column in the order of `rows`."""
        chunks = np.searchsorted(self.starts, rows, side="right") - 1
        places = list(zip(chunks.tolist(), (rows - self.starts[chunks]).tolist(), strict=True))
        return {name: [readers[chunk](row) for chunk, row in places] for name, readers in self.readers.items()}


def _reader(array: pa.Array) -> Callable[[int], Any]:
    if pa.types.is_list(array.type) and not array.null_count and _is_plain(array.values):
        return partial(_list_at, array.values.to_numpy(), array.offsets.to_numpy())
    if _is_plain(array):
        return array.to_numpy().__getitem__  # type: ignore[no-any-return]
    return partial(_value_at, array)


def _is_plain(array: pa.Array) -> bool:
    kinds = pa.types
    return not array.null_count and (kinds.is_integer(array.type) or kinds.is_floating(array.type))


def _list_at(values: NDArray[Any], offsets: NDArray[np.int32], row: int) -> NDArray[Any]:
    return values[offsets[row] : offsets[row + 1]]


def _value_at(array: pa.Array, row: int) -> Any:
    return array[row].as_py()
