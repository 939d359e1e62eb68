"""A callback as users write them, in a module of their own."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

counted: list[int] = []


class Count(pl.Callback):
    """Counts batches."""

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keeps every so many."""
        if batch_idx % self.every == 0:
            counted.append(batch_idx)
