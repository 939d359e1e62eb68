"""Layer-wise decayed learning rates: all layers train, lower ones more slowly (Howard and Ruder, ACL 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat

from finespun.config.sections import Section, Share
from finespun.strategies.anatomy import dissect, layers
from finespun.strategies.base import Tuning

if TYPE_CHECKING:
    from torch import nn


class Llrd(Section):
    """Each layer's rate is `layer_decay` times that of the layer above it; the top's is `lr_scale` times the optimizer's."""

    four_bit: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = {
        "blocks": "all blocks train; take strategy: last_n, which takes layer_decay",
    }

    layer_decay: Share
    lr_scale: PositiveFloat
    head_lr_scale: PositiveFloat

    def tune(self, model: nn.Module) -> Tuning:
        groups = layers(dissect(model), scale=self.lr_scale, decay=self.layer_decay, head_lr_scale=self.head_lr_scale)
        return Tuning(model=model, groups=groups)
