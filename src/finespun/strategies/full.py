"""All parameters train, at one rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finespun.config.sections import Section
from finespun.strategies.base import Group, Tuning

if TYPE_CHECKING:
    from torch import nn


class Full(Section):
    """Full fine-tuning."""

    def tune(self, model: nn.Module) -> Tuning:
        return Tuning(model=model, groups=[Group(name="all", parameters=dict(model.named_parameters()))])
