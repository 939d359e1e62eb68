"""Finding a head's weights without gradient steps: features once, one fit, one validation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finespun.config.sections import RunConfig
from finespun.data.batches import Batches
from finespun.data.loader import BatchLoader
from finespun.errors import ConfigError
from finespun.strategies.base import Solution
from finespun.tasks.base import Task
from finespun.training.callbacks import Sink
from finespun.training.history import History
from finespun.training.launch import world_size
from finespun.training.loading import EVALUATION_ROWS


def solve(
    model: Any, solution: Solution, task: Task, train: BatchLoader, val: BatchLoader, *,
    config: RunConfig, labels: list[str], folder: Path | None, history: History, sink: Sink,
) -> float:  # fmt: skip
    """Sets the weights of the solution's layer and returns the monitored metric of the validation split.

    Raises:
        ConfigError: several processes train, or the layer is not given one vector a row.
    """
    if world_size() > 1:
        raise ConfigError(["strategy: features are fitted in one process; set runtime.devices: 1"])
    features, targets, weights = _split(model, solution, train, folder and folder / "train")
    counted = weights if config.trainer.imbalance == "class_weights" else None
    weight, bias = solution.solve(features.astype(np.float64), targets, counted, solution.layer.out_features)
    with torch.no_grad():
        solution.layer.weight.copy_(torch.from_numpy(weight))
        solution.layer.bias.copy_(torch.from_numpy(bias))
    features, targets, _ = _split(model, solution, val, folder and folder / "val")
    with torch.inference_mode():
        logits = solution.layer(torch.from_numpy(features).to(solution.layer.weight.device)).cpu()
    metrics = task.metrics(labels).clone(prefix="val/")
    metrics.update(logits, torch.from_numpy(targets))
    found = {name: float(value) for name, value in metrics.compute().items()}
    found["val/loss"] = float(task.loss(logits, torch.from_numpy(targets)).mean())
    history.cut_back(-1)
    history.add(found, step=1, epoch=0)
    sink(found, 1)
    return found[task.monitor]


def _split(
    model: Any, solution: Solution, loader: BatchLoader, folder: Path | None
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float64]]:
    """Returns what enters the layer (rows, width), targets and weights, in the split's order; features are kept in `folder`."""
    path = folder and folder / f"into-{solution.name}.npy"
    known = np.load(path) if path and path.exists() else None
    ordered = BatchLoader(loader.rows, Batches(loader.batches.lengths, step_rows=EVALUATION_ROWS, seed=None))
    rows, targets, weights, found = [], [], [], []
    for batch in ordered:
        rows.append(batch.rows.numpy())
        targets.append(batch.targets.numpy())
        weights.append(batch.weights.numpy().astype(np.float64) * batch.counted)
        if known is None:
            found.append(_entering(model, solution, batch.inputs))
    back = np.argsort(np.concatenate(rows))
    features = known if known is not None else np.concatenate(found)[back]
    if known is None and path:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.stem}.{os.getpid()}.npy")  # trials beside this one may be computing the same
        np.save(partial, features)
        partial.replace(path)
    return features, np.concatenate(targets)[back], np.concatenate(weights)[back]


def _entering(model: Any, solution: Solution, inputs: dict[str, torch.Tensor]) -> NDArray[np.float32]:
    found: list[torch.Tensor] = []
    handle = solution.layer.register_forward_pre_hook(lambda _layer, given: found.append(given[0]))
    device = solution.layer.weight.device
    try:
        with torch.inference_mode():
            model.eval()(**{name: tensor.to(device) for name, tensor in inputs.items()})
    finally:
        handle.remove()
    if found[0].ndim != 2:
        shape = tuple(found[0].shape)
        reason = f"strategy: features fits one vector a row, {solution.name} is given {shape} (an answer for each token?)"
        raise ConfigError([f"{reason}; take strategy: head"])
    return found[0].float().cpu().numpy()
