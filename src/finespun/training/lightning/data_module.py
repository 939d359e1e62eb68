"""FineTuningData: the one LightningDataModule. It hands prepared splits to Lightning's Trainer as loaders of whole batches."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as pl
import torch

from finespun.data.loader import BatchLoader
from finespun.tasks.base import Batch


class FineTuningData(pl.LightningDataModule):
    """Loaders by split (train, val, test), each with its own sampler: rank and batch are decided in `data/batches.py`.

    There is no `prepare_data`: the stage `prepare` does its work, once, before any process imports torch
    (`docs/decisions/0026-evaluating-by-lightning.md`).
    """

    def __init__(self, loaders: Mapping[str, BatchLoader]) -> None:
        super().__init__()
        self.loaders = loaders

    def train_dataloader(self) -> BatchLoader:
        """Returns the training split in the order of (seed, epoch)."""
        return self.loaders["train"]

    def val_dataloader(self) -> BatchLoader:
        """Returns the validation split, longest rows first."""
        return self.loaders["val"]

    def test_dataloader(self) -> BatchLoader:
        """Returns the test split, longest rows first."""
        return self.loaders["test"]

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Moves what is computed with; Lightning would look for tensors in everything that a batch holds."""
        return batch.to(device)
