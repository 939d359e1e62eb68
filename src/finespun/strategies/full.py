"""All parameters train, at one rate; the head of a regression at a higher one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat

from finespun.config.sections import Section
from finespun.errors import ModelError
from finespun.strategies.anatomy import dissect
from finespun.strategies.base import Group, Tuning

if TYPE_CHECKING:
    from torch import nn


class Full(Section):
    """Full fine-tuning."""

    four_bit: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = {
        "layer_decay": "all parameters train at one rate; take strategy: llrd",
        "lr_scale": "all parameters train at one rate; set optimizer.lr, or take strategy: llrd",
        "head_lr_scale": "all parameters train at one rate; take strategy: llrd",
        "blocks": "all blocks train; take strategy: last_n",
    }

    regression_head_lr_scale: PositiveFloat  # what is above the blocks, where numbers are predicted

    def tune(self, model: nn.Module) -> Tuning:
        parameters = dict(model.named_parameters())
        top = _above_blocks(model) if self.regression_head_lr_scale != 1 else set()
        head = {name: each for name, each in parameters.items() if name in top}
        groups = [Group(name="all", parameters=parameters)]
        if head:
            rest = {name: each for name, each in parameters.items() if name not in head}
            quick = Group(name="head", parameters=head, lr_scale=self.regression_head_lr_scale)
            groups = [Group(name="below_head", parameters=rest), quick]
        return Tuning(model=model, groups=groups)


def _above_blocks(model: nn.Module) -> set[str]:
    """Returns what is above the blocks of a model that predicts numbers; nothing of another, or of one without blocks."""
    if getattr(getattr(model, "config", None), "problem_type", None) != "regression":
        return set()
    try:
        return {*dissect(model).above_blocks}
    except ModelError:
        return set()
