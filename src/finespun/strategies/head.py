"""A new head on a frozen backbone: the linear probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat

from finespun.config.sections import Section
from finespun.strategies.anatomy import dissect
from finespun.strategies.base import Group, Tuning

if TYPE_CHECKING:
    from torch import nn


class Head(Section):
    """Trains what comes after the last block; `train_pooler` says whether the backbone's own pooler is part of it.

    A final norm alone is no pooler: it stays frozen, so that the inputs of the head can be kept.
    """

    four_bit: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = {
        "layer_decay": "only the head trains: no layer below it has a rate; take strategy: llrd or last_n",
        "blocks": "no block trains; take strategy: last_n",
    }

    train_pooler: bool
    head_lr_scale: PositiveFloat

    def tune(self, model: nn.Module) -> Tuning:
        anatomy = dissect(model)
        pools = self.train_pooler and any(parameter.ndim > 1 for parameter in anatomy.top.values())
        parameters = anatomy.above_blocks if pools else anatomy.head
        return Tuning(model=model, groups=[Group(name="head", parameters=parameters, lr_scale=self.head_lr_scale)])
