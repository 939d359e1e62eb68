"""Finding a head's weights without gradient steps: features once, one fit, one validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from finespun.config.sections import RunConfig
from finespun.data.loader import BatchLoader
from finespun.errors import ConfigError
from finespun.strategies.base import Solution
from finespun.tasks.base import Task
from finespun.training.entering import Head, entering
from finespun.training.history import Recorder
from finespun.training.launch import world_size


def solve(
    model: Any, solution: Solution, task: Task, train: BatchLoader, val: BatchLoader, *,
    config: RunConfig, labels: list[str], folder: Path | None, recorder: Recorder, precision: str,
) -> float:  # fmt: skip
    """Sets the weights of the solution's layer and returns the monitored metric of the validation split.

    Raises:
        ConfigError: several processes train, or the layer is not given one vector a row.
    """
    if world_size() > 1:
        raise ConfigError(["strategy: features are fitted in one process; set runtime.devices: 1"])
    if not task.deterministic:
        reason = "strategy: features is fitted once, on each image as it is"
        raise ConfigError([f"{reason}; set all of task.augmentation to 0, or take strategy: head"])
    layer = solution.layer
    head = Head(name=solution.name, modules=nn.Sequential(layer), width=layer.in_features)
    features, targets = entering(model, head, train, folder and folder / "train", precision)
    counted = train.rows.row_weights if config.trainer.imbalance == "class_weights" else None
    weight, bias = solution.solve(features.cpu().double().numpy(), targets.cpu().numpy(), counted, layer.out_features)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    features, targets = entering(model, head, val, folder and folder / "val", precision)
    with torch.inference_mode():
        logits = layer(features)
    metrics = task.metrics(labels).clone(prefix="val/").to(logits.device)
    metrics.update(logits, targets)
    found = {name: float(value) for name, value in metrics.compute().items()}
    found["val/loss"] = float(task.loss(logits, targets).mean())
    recorder.history.cut_back(-1)
    recorder.record(found, 1)
    return found[task.monitor]
