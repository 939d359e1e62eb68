"""From Arrow to tensors: the loader that Lightning iterates, which knows where to take up an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from finespun.data.batches import Batches, Part
from finespun.tasks.base import Batch, Encoder, Task


class Rows(Dataset[Batch]):
    """A split whose items are whole batches: `rows[part]` reads, pads and returns them."""

    def __init__(self, table: pa.Table, task: Task, encoder: Encoder, row_weights: NDArray[np.float64] | None = None) -> None:
        """`row_weights` (rows,) says how much each row counts in the gradient; None: all the same."""
        self.task, self.encoder, self.row_weights = task, encoder, row_weights
        self.table = table.select([name for name in (*task.model_columns, "target") if name in table.column_names])

    def __getitem__(self, part: Part) -> Batch:
        columns: dict[str, Any] = take(self.table, part.rows)
        inputs, targets = self.task.collate(columns, self.encoder)
        assert targets is not None, "prepared rows have answers"
        weights = np.full(len(part.rows), part.weight)
        if self.row_weights is not None:
            weights *= self.row_weights[part.rows]
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
            persistent_workers=False,  # a worker would keep the sampler of the epoch in which it began
        )
        self.rows, self.batches = rows, batches
        self.position = {"epoch": 0, "batch": 0}

    def with_rows(self, rows: Dataset[Batch]) -> BatchLoader:
        """The same batches of the same rows, given in another way."""
        return BatchLoader(rows, self.batches, num_workers=self.num_workers, pin_memory=self.pin_memory)

    def state_dict(self) -> dict[str, int]:
        """Where training stands: set by the training loop, since a loader with workers runs ahead of it."""
        return dict(self.position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration begins at `state`."""
        self.batches.resume_at(state["epoch"], state["batch"])


def _as_it_is(batch: Any) -> Any:
    return batch  # torch's own would walk through it, looking for arrays


def take(table: pa.Table, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Returns columns of some rows, in their order, reading no others.

    Arrow's own `take` on a chunked list column first copies all chunks together, which would read the whole file.
    """
    batches = table.to_batches()
    ends = np.cumsum([batch.num_rows for batch in batches])
    chunk_of = np.searchsorted(ends, rows, side="right")
    order = np.argsort(chunk_of, kind="stable")
    pieces = []
    for chunk in np.unique(chunk_of):
        inside = rows[order][chunk_of[order] == chunk] - (ends[chunk] - batches[chunk].num_rows)
        pieces.append(batches[chunk].take(pa.array(inside)))
    back = np.argsort(order)
    joined = pa.Table.from_batches(pieces)
    return {name: joined[name].to_numpy()[back] for name in joined.column_names}


def lengths_of(table: pa.Table) -> NDArray[np.int32]:
    """Returns the number of tokens of each row."""
    return np.asarray(table["length"].to_numpy(), dtype=np.int32)
