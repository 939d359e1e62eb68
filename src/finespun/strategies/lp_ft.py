"""Linear probe first, then everything (Kumar et al., "Fine-Tuning can Distort Pretrained Features", ICLR 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat, PositiveInt

from finespun.config.sections import Section
from finespun.strategies.anatomy import dissect
from finespun.strategies.base import Group, Tuning

if TYPE_CHECKING:
    from torch import nn


class LpFt(Section):
    """The head trains alone for `probe_epochs`, then all parameters do."""

    four_bit: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = {
        "layer_decay": "after the probe all layers train at one rate; take strategy: gradual, which takes layer_decay",
    }

    probe_epochs: PositiveInt
    head_lr_scale: PositiveFloat

    def tune(self, model: nn.Module) -> Tuning:
        head = dissect(model).above_blocks
        rest = {name: parameter for name, parameter in model.named_parameters() if name not in head}
        groups = [
            Group(name="backbone", parameters=rest, from_epoch=self.probe_epochs),
            Group(name="head", parameters=head, lr_scale=self.head_lr_scale),
        ]
        return Tuning(model=model, groups=groups)
