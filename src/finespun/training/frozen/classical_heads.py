"""Finding a head's weights without gradient steps: features once, one fit, one validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from finespun.data.loader import BatchLoader
from finespun.errors import ConfigError
from finespun.models.conversion import forest
from finespun.strategies.base import Linear, Solution
from finespun.training.frozen.head_inputs import Head, inputs_of_head, scores_of
from finespun.training.job import Job
from finespun.training.lightning.launching import world_size


def solve(job: Job, solution: Solution, train: BatchLoader, val: BatchLoader) -> tuple[Any, float]:
    """Returns the model with its layer solved, and the monitored metric of the validation split.

    Raises:
        ConfigError: several processes train, an option asks for steps, or the layer is not given one vector a row.
    """
    model: Any = job.tuning.model
    task = job.task
    _require_one_look(job)
    layer = model.get_submodule(solution.name)
    head = Head(name=solution.name, modules=nn.Sequential(layer), width=layer.in_features)
    features, targets = inputs_of_head(job, head, train, "train")
    unseen = inputs_of_head(job, head, val, "val")
    counted = train.rows.row_weights if job.config.trainer.imbalance == "class_weights" else None
    solved = solution.solve(features.cpu().double().numpy(), task.scaled(targets).cpu().numpy(), counted, layer.out_features)
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
    metrics = task.metrics(job.labels).clone(prefix="val/").to(unseen.features.device)
    found = scores_of(task, metrics, layer, unseen)
    job.recorder.history.cut_back(-1)
    job.recorder.record([(1, found)])
    return model, found[task.monitor]


def _require_one_look(job: Job) -> None:
    trainer = job.config.trainer
    if world_size() > 1:
        raise ConfigError(["strategy: features are fitted in one process; set runtime.devices: 1"])
    for key in ("lightning", "callbacks"):
        if getattr(trainer, key):
            raise ConfigError([f"trainer.{key}: strategy features is fitted without Lightning's Trainer; leave it empty"])
    if trainer.r_drop:
        raise ConfigError([f"trainer.r_drop: strategy features takes no steps; set it to null (it is {trainer.r_drop})"])
    if trainer.imbalance == "weighted_sampling":
        reason = "strategy features sees every row once"
        raise ConfigError([f"trainer.imbalance: weighted_sampling: {reason}; take class_weights"])
    if not job.task.deterministic:
        reason = "strategy: features is fitted once, on each image as it is"
        raise ConfigError([f"{reason}; set all of task.augmentation to 0, or take strategy: head"])
