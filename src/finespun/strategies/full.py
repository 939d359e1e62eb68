"""All parameters train, at one rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from finespun.config.sections import Section
from finespun.strategies.base import Group, Tuning

if TYPE_CHECKING:
    from torch import nn


class Full(Section):
    """Full fine-tuning."""

    refuses: ClassVar[Mapping[str, str]] = {
        "layer_decay": "all parameters train at one rate; take strategy: llrd",
        "lr_scale": "all parameters train at one rate; set optimizer.lr, or take strategy: llrd",
        "head_lr_scale": "all parameters train at one rate; take strategy: llrd",
        "blocks": "all blocks train; take strategy: last_n",
    }

    def tune(self, model: nn.Module) -> Tuning:
        return Tuning(model=model, groups=[Group(name="all", parameters=dict(model.named_parameters()))])
