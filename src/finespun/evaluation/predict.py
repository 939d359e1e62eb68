"""A model's outputs for a prepared split, on all devices, each row once."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from finespun.config.sections import RuntimeConfig
from finespun.data.prepared import PreparedData
from finespun.tasks.base import Encoder, Outputs, Task
from finespun.training.hardware import choose_accelerator, device_of
from finespun.training.launch import rank, world_size
from finespun.training.loading import EVALUATION_ROWS, make_loader


def predict_split(
    *, model: nn.Module, task: Task, encoder: Encoder, prepared: PreparedData, split: str, runtime: RuntimeConfig
) -> Outputs | None:
    """Returns one array a row, in the split's order, on rank zero, None on the others.

    A bare loop: a forward pass over batches that are already made needs nothing of a trainer. The arithmetic is float32
    everywhere, so that the numbers are those of plain transformers on the saved model.
    """
    device = device_of(choose_accelerator(runtime.accelerator))
    model.eval().to(device)
    loader = make_loader(prepared, split, task=task, encoder=encoder, step_rows=EVALUATION_ROWS, runtime=runtime)
    quiet = rank() > 0 or not runtime.progress_bar or not sys.stderr.isatty()
    found: dict[int, NDArray[np.float64]] = {}
    with torch.inference_mode():
        for batch in tqdm(loader, disable=quiet, unit="batch", leave=False):
            inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
            outputs = task.outputs(model(**inputs).logits[: batch.counted].float().cpu().numpy())
            found |= dict(zip(batch.rows.tolist(), outputs, strict=False))
    parts = _gathered(found)
    if parts is None:
        return None
    together = {row: output for part in parts for row, output in part.items()}
    assert len(together) == sum(map(len, parts)) == len(loader.batches.lengths), "each row must be predicted once"
    return [together[row] for row in range(len(together))]


def _gathered(mine: Any) -> list[Any] | None:
    """Returns every rank's part on rank zero."""
    if world_size() == 1:
        return [mine]
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    parts: list[Any] = [None] * world_size()
    dist.gather_object(mine, parts if rank() == 0 else None)
    return parts if rank() == 0 else None
