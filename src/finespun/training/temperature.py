"""A calibrated head: logits are divided by the temperature that the task has chosen on the validation split."""

from __future__ import annotations

from typing import Any

import torch

from finespun.models.heads import output_layer, rescale


def fold(model: Any) -> None:
    """Divides the numbers of the last layer, so that plain transformers gives calibrated probabilities, too.

    Where logits are no linear function of one layer, `calibration_temperature` stays in the model's configuration: finespun and
    the MLflow model divide by it.
    """
    temperature = getattr(model.config, "calibration_temperature", None)
    if temperature is None:
        return
    layer = output_layer(model)
    print(f"calibrated: temperature {temperature:.3f}")  # noqa: T201
    if layer is not None:
        with torch.no_grad():
            factor = torch.full((layer[1].shape[0],), 1 / temperature, dtype=torch.float64)
            rescale(layer, factor, torch.zeros_like(factor))
        del model.config.calibration_temperature
