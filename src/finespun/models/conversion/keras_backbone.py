"""Keras models as torch modules: read from .keras and .h5 files without running code in them, cut below their head."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finespun.errors import ModelError, did_you_mean, listed
from finespun.masking import one_line


def _keras() -> Any:
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras  # noqa: PLC0415  (an extra; its backend is chosen when it is imported)
    except ImportError as error:
        raise ModelError(f"Keras cannot be imported ({error}); install it: pip install 'finespun[keras]'") from error
    if keras.backend.backend() != "torch":
        raise ModelError(f"Keras was imported with its backend {keras.backend.backend()}; set KERAS_BACKEND=torch")
    return keras


class _Layer(nn.Module):
    """The numbers of one Keras layer: what trains as parameters, what does not (moving means, seeds) as buffers."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        for number, variable in enumerate(layer.trainable_variables):
            self.register_parameter(str(number), nn.Parameter(variable.value.detach().clone()))
        for number, variable in enumerate(layer.non_trainable_variables):
            self.register_buffer(f"buffer{number}", variable.value.detach().clone())


class KerasBackbone(nn.Module):
    """A Keras model that computes with tensors of its own, so that they can be loaded, moved and trained as any module's.

    `layers` are its layers that can train, `others` those that have numbers all the same (a dropout's seed). It trains
    (dropout, batch statistics) only where all of its layers do: a partly frozen one runs in inference mode.
    """

    def __init__(self, architecture: str) -> None:
        super().__init__()
        net = _keras().saving.deserialize_keras_object(json.loads(architecture), safe_mode=True)
        net.trainable = True
        self._net = (net,)  # in a tuple: its own tensors are none of this module's
        self._places: dict[int, tuple[str, int, str]] = {}
        self.layers = self._held("layers", [layer for layer in net.layers if layer.trainable_variables])
        self.others = self._held("others", [layer for layer in net.layers if layer.variables and not layer.trainable_variables])
        self._channels_last = len(net.inputs[0].shape) == 4 and net.inputs[0].shape[-1] in {1, 3, 4}

    def _held(self, among: str, layers: Sequence[Any]) -> nn.ModuleList:
        for position, layer in enumerate(layers):
            for prefix, variables in (("", layer.trainable_variables), ("buffer", layer.non_trainable_variables)):
                for number, variable in enumerate(variables):
                    self._places[id(variable)] = (among, position, f"{prefix}{number}")
        return nn.ModuleList(_Layer(layer) for layer in layers)

    def _mine(self, variables: Sequence[Any]) -> list[torch.Tensor]:
        """This module's tensors for variables of Keras's, in the order that it wants them."""
        places = [self._places[id(variable)] for variable in variables]
        return [getattr(self.get_submodule(f"{among}.{position}"), name) for among, position, name in places]

    def take(self, net: Any) -> None:
        """Takes over the numbers of a Keras model of the same architecture."""
        (own,) = self._net
        with torch.no_grad():
            for mine, theirs in zip(self._mine(own.variables), net.variables, strict=True):
                mine.copy_(theirs.value)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Returns what the layer below the cut gives, for images (rows, channels, height, width) or rows of numbers."""
        given = pixel_values.permute(0, 2, 3, 1) if self._channels_last else pixel_values
        (net,) = self._net
        kept = self._mine(net.non_trainable_variables)
        training = self.training and all(layer.training for layer in self.layers)
        with _keras().device(str(given.device)):
            features, after = net.stateless_call(self._mine(net.trainable_variables), kept, given, training=training)
        with torch.no_grad():
            for ours, new in zip(kept, after, strict=True):
                ours.copy_(new)
        return torch.as_tensor(features)


def read(path: Path, cut: str | None) -> tuple[dict[str, Any], dict[str, torch.Tensor], int]:
    """Reads a Keras file; returns what a KerasBackbone of all below the cut is called with, its tensors, and its width.

    Args:
        path: a model that `model.save` wrote, as .keras or .h5.
        cut: the layer that the new head stands for; None: the last Dense.

    Raises:
        ModelError: the file cannot be read, holds weights alone or code (a Lambda layer), or has no such layer.
    """
    keras = _keras()
    if path.name.endswith(".weights.h5"):
        raise ModelError(f"{path}: holds weights without their architecture; save the whole model: model.save('model.keras')")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, AttributeError, ImportError) as error:
        reason = one_line(error, 200)
        what = "has a Lambda layer, which is code; nothing was run" if "Lambda" in reason else "cannot be read by Keras"
        raise ModelError(f"{path}: {what} ({reason}); save the model from layers of Keras's own") from error
    backbone = _below(keras, model, cut, path)
    if len(backbone.inputs) != 1 or len(backbone.outputs) != 1 or len(backbone.outputs[0].shape) != 2:
        raise ModelError(
            f"{path}: must have one input and give one row of numbers a row below {cut or 'its head'}; set model.cut"
        )
    options = {"architecture": backbone.to_json()}
    made = KerasBackbone(**options)
    made.take(backbone)
    return options, made.state_dict(), int(backbone.outputs[0].shape[-1])


def _below(keras: Any, model: Any, cut: str | None, path: Path) -> Any:
    names = [layer.name for layer in model.layers]
    dense = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    if cut is not None and cut not in names:
        raise ModelError(f"model.cut: {path} has no layer {cut!r}{did_you_mean(cut, names)}; it has: {listed(names)}")
    if cut is None and not dense:
        raise ModelError(f"{path}: has no Dense layer to be replaced; name the layer that the head stands for as model.cut")
    return keras.Model(model.inputs, model.get_layer(cut or dense[-1]).input)
