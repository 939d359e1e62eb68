"""The top blocks and the head train; what is below stays frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeInt, PositiveFloat

from finespun.config.sections import Section, Share
from finespun.strategies.anatomy import dissect, layers, require_blocks
from finespun.strategies.base import Tuning

if TYPE_CHECKING:
    from torch import nn


class LastN(Section):
    """Trains the last `blocks` blocks, of whichever kind the model has (layers of an encoder, stages of a conv net)."""

    four_bit: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = {}

    blocks: NonNegativeInt
    freeze_embeddings: bool
    layer_decay: Share
    head_lr_scale: PositiveFloat

    def tune(self, model: nn.Module) -> Tuning:
        anatomy = dissect(model)
        require_blocks(self.blocks, anatomy, "blocks")
        groups = layers(anatomy, decay=self.layer_decay, head_lr_scale=self.head_lr_scale)
        trained = {f"block_{number}" for number in range(len(anatomy.blocks) - self.blocks, len(anatomy.blocks))} | {"head"}
        trained |= set() if self.freeze_embeddings else {"embeddings"}
        return Tuning(model=model, groups=[group for group in groups if group.name in trained])
