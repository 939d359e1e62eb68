"""All parameters train, at one rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finespun.config.sections import Section
from finespun.strategies.base import Group

if TYPE_CHECKING:
    from torch import nn


class Full(Section):
    """Full fine-tuning."""

    def groups(self, model: nn.Module) -> list[Group]:
        return [Group("all", dict(model.named_parameters()))]
