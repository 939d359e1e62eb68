"""A model's outputs for a prepared split, on all devices, each row once."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from torch import nn

from finespun.config.sections import RuntimeConfig
from finespun.data.loader import BatchLoader
from finespun.tasks.base import Task
from finespun.training.fine_tuner import FineTuner
from finespun.training.fit import make_trainer
from finespun.training.hardware import choose
from finespun.training.launch import rank, world_size


def predict_split(
    *, model: nn.Module, task: Task, loader: BatchLoader, num_labels: int, runtime: RuntimeConfig
) -> NDArray[np.float64] | None:
    """Returns outputs (rows, labels) in the split's order on rank zero, None on the others.

    The arithmetic is float32 everywhere, so that the numbers are those of plain transformers on the saved model.
    """
    bar: list[Callback] = [TQDMProgressBar(refresh_rate=10)] if runtime.progress_bar and sys.stderr.isatty() else []
    devices = choose(runtime, "32-true")
    trainer = make_trainer(devices, progress_bar=bool(bar), enable_checkpointing=False, callbacks=bar)
    module = FineTuner(model=model.eval(), task=task, num_labels=num_labels)
    trainer.test(module, loader, verbose=False)
    positions = torch.cat([rows for rows, _ in module.predicted]).numpy()
    logits = torch.cat([logits for _, logits in module.predicted]).numpy()
    gathered: list[Any] = [(positions, logits)]
    if world_size() > 1:
        gathered = [None] * world_size()
        dist.gather_object((positions, logits), gathered if rank() == 0 else None)
        if rank():
            return None
    positions = np.concatenate([each for each, _ in gathered])
    assert np.array_equal(np.sort(positions), np.arange(len(positions))), "each row must be predicted once"
    logits = np.concatenate([each for _, each in gathered])
    return task.outputs(logits[np.argsort(positions)])
