"""Finding a head's weights without gradient steps: features once, one fit, one validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from finespun.config.sections import RunConfig
from finespun.data.loader import BatchLoader
from finespun.errors import ConfigError
from finespun.models import forest
from finespun.strategies.base import Linear, Solution
from finespun.tasks.base import Task
from finespun.training.entering import Head, entering
from finespun.training.history import Recorder
from finespun.training.launch import world_size


def solve(
    model: Any, solution: Solution, task: Task, train: BatchLoader, val: BatchLoader, *,
    config: RunConfig, labels: list[str], folder: Path | None, recorder: Recorder, precision: str,
) -> tuple[Any, float]:  # fmt: skip
    """Returns the model with its layer solved, and the monitored metric of the validation split.

    Raises:
        ConfigError: several processes train, an option asks for steps, or the layer is not given one vector a row.
    """
    if world_size() > 1:
        raise ConfigError(["strategy: features are fitted in one process; set runtime.devices: 1"])
    if config.trainer.r_drop:
        raise ConfigError([f"trainer.r_drop: strategy features takes no steps; set it to null (it is {config.trainer.r_drop})"])
    if not task.deterministic:
        reason = "strategy: features is fitted once, on each image as it is"
        raise ConfigError([f"{reason}; set all of task.augmentation to 0, or take strategy: head"])
    layer = solution.layer
    head = Head(name=solution.name, modules=nn.Sequential(layer), width=layer.in_features)
    features, targets = entering(model, head, train, folder and folder / "train", precision)
    unseen, answers = entering(model, head, val, folder and folder / "val", precision)
    counted = train.rows.row_weights if config.trainer.imbalance == "class_weights" else None
    solved = solution.solve(features.cpu().double().numpy(), targets.cpu().numpy(), counted, layer.out_features)
    if isinstance(solved, Linear):
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(solved.weight))
            layer.bias.copy_(torch.from_numpy(solved.bias))
    else:
        arrays = {name: torch.from_numpy(array) for name, array in solved._asdict().items() if isinstance(array, np.ndarray)}
        model = forest.grown(
            model, solution.name, auto_class=task.auto_class, kind=solved.kind, depth=solved.depth, tensors=arrays
        )  # fmt: skip
        layer = model.backbone.get_submodule(solution.name)
    with torch.inference_mode():
        logits = layer(unseen)
    metrics = task.metrics(labels).clone(prefix="val/").to(logits.device)
    metrics.update(logits, answers)
    found = {name: float(value) for name, value in metrics.compute().items()}
    found["val/loss"] = float(task.loss(logits, answers).mean())
    recorder.history.cut_back(-1)
    recorder.record([(1, found)])
    return model, found[task.monitor]
