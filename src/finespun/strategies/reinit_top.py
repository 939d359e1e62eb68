"""The top blocks begin anew (Zhang et al., "Revisiting Few-sample BERT Fine-tuning", ICLR 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PositiveInt

from finespun.config.sections import Section, Share
from finespun.strategies.anatomy import dissect, layers, require_blocks
from finespun.strategies.base import Tuning

if TYPE_CHECKING:
    from torch import nn


class ReinitTop(Section):
    """Draws new weights for the last `blocks` blocks and what the backbone has above them, then trains everything."""

    four_bit: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = {
        "head_lr_scale": "the new blocks and the head have the full rate already, layer_decay lowers the others",
    }

    blocks: PositiveInt
    layer_decay: Share

    def tune(self, model: nn.Module) -> Tuning:
        anatomy = dissect(model)
        require_blocks(self.blocks, anatomy, "blocks")
        top = {name.rpartition(".")[0] for name in anatomy.top}
        initialise: Any = getattr(model, "_init_weights")  # noqa: B009  (how each transformers model draws its first weights)
        for name, module in model.named_modules():
            if name in top or name.startswith(tuple(f"{block}." for block in anatomy.block_names[-self.blocks :])):
                for parameter in module.parameters(recurse=False):
                    parameter._is_hf_initialized = False  # noqa: SLF001  (transformers would keep it)
                initialise(module)
        return Tuning(model=model, groups=layers(anatomy, decay=self.layer_decay))
