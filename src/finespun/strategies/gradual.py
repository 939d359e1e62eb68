"""Gradual unfreezing, top down (Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat, PositiveInt

from finespun.config.sections import Section, Share
from finespun.strategies.anatomy import dissect, layers
from finespun.strategies.base import Tuning

if TYPE_CHECKING:
    from torch import nn


class Gradual(Section):
    """The head trains in the first epoch; `blocks_per_epoch` more layers join at the start of each later one."""

    four_bit: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = {
        "blocks": "all blocks train in the end, blocks_per_epoch more at each epoch; take strategy: last_n",
    }

    blocks_per_epoch: PositiveInt
    layer_decay: Share
    head_lr_scale: PositiveFloat

    def tune(self, model: nn.Module) -> Tuning:
        groups = layers(dissect(model), decay=self.layer_decay, head_lr_scale=self.head_lr_scale)
        below = [len(groups) - 1 - position for position in range(len(groups))]  # how many layers are above each
        epochs = [-(-depth // self.blocks_per_epoch) for depth in below]
        return Tuning(
            model=model, groups=[replace(group, from_epoch=epoch) for group, epoch in zip(groups, epochs, strict=True)]
        )
