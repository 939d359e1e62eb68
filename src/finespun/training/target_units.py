"""The unit of regression targets: trained in deviations from their mean, exported in the user's own.

The finished model's logits are the user's numbers, also for plain transformers: mean and deviation are folded into its last
layer. Where that cannot be done (a last layer without biases; a mean ten thousand times as large as the deviation, beside which
single precision is too coarse), `target_scale` in the model's configuration says what to multiply with and to add.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from finespun.models.heads import output_layer, rescale
from finespun.models.pretrained import Loaded
from finespun.tasks.base import TargetScale, Task

FAR = 1e4  # deviations: a mean beyond is not folded in
CLOSE = 1e-2  # deviations, between logits with the scale folded in and those that are scaled afterwards


def take_up(task: Task, model: Any, loaded: Loaded) -> Task:
    """Brings the rows of a head that an earlier model had into the scale of this training split; new rows are in no other.

    Returns:
        the task, with the earlier scale for such rows where the head has no biases to take up another.
    """
    earlier = vars(model.config).pop("target_scale", None)  # of the model that was continued from, as what follows
    for name in ("label_thresholds", "calibration_temperature"):
        vars(model.config).pop(name, None)
    scale = task.scale()
    taken = loaded.head.taken if loaded.head else []
    if scale is None or all(row is None for row in taken):
        return task
    now, old = [_pairs(each) for each in (scale, earlier)]
    old = [now[place] if row is None else (old[row] if old else (0.0, 1.0)) for place, row in enumerate(taken)]
    layer = output_layer(model)
    if layer is None:
        mean, deviation = zip(*old, strict=True)
        return task.settled({"target_scale": {"mean": mean, "deviation": deviation}})
    (old_mean, old_deviation), (mean, deviation) = (torch.tensor(each, dtype=torch.float64).T for each in (old, now))
    with torch.no_grad():
        rescale(layer, old_deviation / deviation, (old_mean - mean) / deviation)
    return task


def _pairs(scale: TargetScale | Mapping[str, Any] | None) -> list[tuple[float, float]]:
    if scale is None:
        return []
    plain = scale.model_dump() if isinstance(scale, TargetScale) else scale
    return list(zip(plain["mean"], plain["deviation"], strict=True))


def fold(task: Task, model: Any, tried: Mapping[str, torch.Tensor]) -> None:
    """Makes a trained model's logits the user's numbers, or says in its configuration how they become that.

    Args:
        task: as it was trained on.
        model: plain transformers; it is left on the CPU.
        tried: inputs of some rows, on which both are compared.
    """
    scale = task.scale()
    if scale is None:
        return
    mean, deviation = (torch.tensor(each, dtype=torch.float64) for each in (scale.mean, scale.deviation))
    layer = output_layer(model)
    model.cpu().eval()
    with torch.no_grad():
        if layer is not None and (mean.abs() <= FAR * deviation).all():
            expected = model(**tried).logits.double() * deviation + mean
            kept = [tensor.clone() for tensor in layer]
            rescale(layer, deviation, mean)
            if ((model(**tried).logits.double() - expected).abs() <= CLOSE * deviation).all():
                return
            for tensor, before in zip(layer, kept, strict=True):
                tensor.copy_(before)
    model.config.target_scale = scale.model_dump(mode="json")
