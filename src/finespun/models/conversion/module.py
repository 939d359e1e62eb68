"""Any `torch.nn.Module` as a transformers model: its last linear layer is taken off, and a new head stands on what came before.

Saved models carry a copy of this file: plain transformers loads them with `trust_remote_code=True`, and without it where
`finespun.models.conversion.module` was imported. So nothing of finespun is imported here.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutput

AUTO_CLASSES = (AutoModelForImageClassification, AutoModelForSequenceClassification, AutoModelForTokenClassification)


class ModuleConfig(PreTrainedConfig):
    """The class of a module by its dotted name, what it is called with, and where its own head was."""

    model_type = "finespun_module"

    target: str = ""
    options: dict[str, Any] | None = None
    cut: str = ""  # the layer that the head stands for; empty: the module has no head
    hidden_size: int = 0  # numbers a row (or a token) below the head
    auto_map: dict[str, str] | None = None  # which classes of the copy of this file transformers takes for which Auto class


class ModuleForLabels(PreTrainedModel):
    """A module without its own head, and a linear layer on it.

    The module is called with images (rows, channels, height, width), or with token ids (rows, length) and, where it takes one,
    their `attention_mask`; it gives (rows, width), (rows, width, height, width), whose mean is taken, or (rows, length, width).
    """

    config_class = ModuleConfig
    base_model_prefix = "backbone"

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__(config)
        with torch.device("cpu"):  # from_pretrained builds without numbers, and would lose those that are computed here
            self.backbone = build(config.target, config.options or {})
        if config.cut:
            self.backbone.set_submodule(config.cut, nn.Identity())
        for module in self.backbone.modules():
            module._non_persistent_buffers_set.clear()  # noqa: SLF001  (saved too: from_pretrained would leave them without numbers)
        self.masked = "attention_mask" in inspect.signature(self.backbone.forward).parameters
        self.classifier = nn.Linear(config.hidden_size, int(config.num_labels or 0))
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **_: Any,
    ) -> ImageClassifierOutput:
        """Returns `logits`, (rows, labels), or (rows, length, labels) where the module gives something for each token."""
        given = input_ids if pixel_values is None else pixel_values
        features = self.backbone(given, attention_mask=attention_mask) if self.masked else self.backbone(given)
        if features.ndim == 4:
            features = features.mean(dim=(2, 3))
        return ImageClassifierOutput(logits=self.classifier(features))


def build(target: str, options: dict[str, Any]) -> nn.Module:
    """Builds a module by its class's dotted name.

    Raises:
        ImportError: there is no such class.
        TypeError: it is no class of modules (a function such as `torch.load` is not called), or does not accept the options.
    """
    package, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(package), name)
    except (AttributeError, ValueError) as error:
        raise ImportError(f"{target} does not exist ({error})") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise TypeError(f"{target} is no class of torch.nn.Module")
    return found(**options)


AutoConfig.register(ModuleConfig.model_type, ModuleConfig, exist_ok=True)
for _auto_class in AUTO_CLASSES:
    _auto_class.register(ModuleConfig, ModuleForLabels, exist_ok=True)
ModuleForLabels.register_for_auto_class(AutoModel.__name__)  # lets save_pretrained copy this file
AUTO_MAP = {"AutoConfig": "module.ModuleConfig"} | {each.__name__: "module.ModuleForLabels" for each in AUTO_CLASSES}
