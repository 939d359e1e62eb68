"""The loader of a split for this process. Imports no Lightning, so that evaluating need not either."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from finespun.config.sections import RuntimeConfig
from finespun.cores import cores
from finespun.data.batches import Batches, balanced_weights
from finespun.data.loader import BatchLoader, Rows
from finespun.data.prepared import PreparedData
from finespun.errors import ConfigError
from finespun.tasks.base import Encoder, Task
from finespun.tasks.inputs.image_files import FILE
from finespun.training.lightning.launching import rank, world_size

EVALUATION_ROWS = 64  # rows of one forward pass without gradients, on all devices together


def make_loader(
    prepared: PreparedData, split: str, *, task: Task, encoder: Encoder, step_rows: int, runtime: RuntimeConfig,
    seed: int | None = None, passes: int = 1, imbalance: str = "ignore",
) -> BatchLoader:  # fmt: skip
    """Returns a split's loader for this rank; with a seed, in training order."""
    table = prepared.open(split)
    weights = None if imbalance == "ignore" else balanced_weights(_labels_of(table, imbalance))
    chances = weights / weights.sum() if weights is not None and imbalance == "weighted_sampling" else None
    counts = task.counts(table)
    batches = Batches(
        table["length"].to_numpy(), step_rows=step_rows, seed=seed, rank=rank(), world_size=world_size(), passes=passes,
        chances=chances, counts=counts,
    )  # fmt: skip
    rows = Rows(table, task, encoder, weights if imbalance == "class_weights" else None, counts)
    workers = runtime.num_workers
    if FILE in table.column_names:
        workers = workers or useful_workers() // world_size()
        if split == "train" and rank() == 0:
            print(f"images: decoded from their files while training, by {workers or 'no'} workers a device", flush=True)  # noqa: T201
    return BatchLoader(rows, batches, num_workers=workers, pin_memory=torch.cuda.is_available())


def useful_workers() -> int:
    """Returns how many workers are of use beside a process that trains: none on one core, or where processes do not fork."""
    return cores() if cores() > 1 and sys.platform == "linux" else 0


def _labels_of(table: pa.Table, imbalance: str) -> NDArray[np.int64]:
    if not pa.types.is_integer(table.schema.field("target").type):
        raise ConfigError([f"trainer.imbalance: {imbalance} needs one label a row, which this task has not; set it to ignore"])
    return np.asarray(table["target"].to_numpy(), dtype=np.int64)
