"""Low-rank adapters through peft (Hu et al., "LoRA", ICLR 2022; Liu et al., "DoRA", ICML 2024), merged when trained.

With `four_bit`, what is frozen is held in 4 bits (Dettmers et al., "QLoRA", NeurIPS 2023); `models.quantized` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PositiveFloat, PositiveInt

from finespun.config.sections import Section, Share, Strings
from finespun.errors import ModelError, listed
from finespun.strategies.anatomy import dissect
from finespun.strategies.base import Group, Tuning

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

LINEAR = ("Linear", "Linear4bit")


class Lora(Section):
    """Trains low-rank updates of the blocks' linear layers, and a new head; the saved model is merged, plain transformers."""

    refuses: ClassVar[Mapping[str, str]] = {
        "layer_decay": "adapters train at one rate, and what is below them not at all; take strategy: llrd",
        "head_lr_scale": "adapters and head have one rate, lr_scale",
    }

    rank: PositiveInt
    alpha: PositiveInt
    dropout: Share
    target_modules: Strings | None  # None: those that peft knows for the architecture, else every linear layer in the blocks
    magnitude: bool  # DoRA: direction and magnitude apart
    four_bit: bool  # QLoRA: what is frozen is held in 4 bits, on a CUDA GPU
    lr_scale: PositiveFloat

    def tune(self, model: nn.Module) -> Tuning:
        from peft import LoraConfig, get_peft_model  # noqa: PLC0415  (1 s that other strategies need not pay)

        written: Any = model
        writes = bool(getattr(written, "can_generate", lambda: False)())  # its head is pretrained, and stays as it is
        if self.four_bit and not writes:
            kind = type(model).__name__
            raise ModelError(f"strategy.four_bit: is for models that write, and {kind} has a head that trains; set it to false")
        heads = [] if writes else _heads(model)
        chosen = sorted(self.target_modules or _linear_layers(model))
        if not chosen:
            raise ModelError(
                f"strategy: {type(model).__name__} has no linear layer in its blocks for adapters to go to; name others in"
                " strategy.target_modules, or take strategy: last_n"
            )
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, use_dora=self.magnitude, target_modules=chosen,
            modules_to_save=heads or None,
        )  # fmt: skip
        try:
            adapted: Any = get_peft_model(model, config)
        except ValueError as error:
            raise ModelError(f"strategy.target_modules: {listed(chosen)}: peft refuses them: {error}") from error
        adapters = {name: p for name, p in adapted.named_parameters() if "lora_" in name}
        kept = {name: p for name, p in adapted.named_parameters() if ".modules_to_save." in name}
        groups = [
            Group(name=name, parameters=parameters, lr_scale=self.lr_scale)
            for name, parameters in (("adapters", adapters), ("head", kept))
            if parameters
        ]
        return Tuning(model=adapted, groups=groups, merge=_merge_dequantized if self.four_bit else _merge)


def _heads(model: nn.Module) -> list[str]:
    """Names of the modules above the blocks that train whole."""
    anatomy = dissect(model)
    heads = sorted({name.split(".")[0] for name in anatomy.head})
    if heads and anatomy.block_names[0].startswith(f"{heads[0]}."):
        raise ModelError(
            f"strategy: {type(model).__name__} makes its outputs inside its decoder, which adapters cannot leave whole; take"
            " strategy: head or last_n"
        )
    return heads


def _linear_layers(model: nn.Module) -> set[str]:
    """Names of the linear layers that adapters go to: peft's own choice for a known architecture, else all in the blocks."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN  # noqa: PLC0415

    config: Any = model.config
    if config.model_type in KNOWN:
        return set(KNOWN[config.model_type])
    inside = {name for block in dissect(model).blocks for name in block}
    linear = (name for name, module in model.named_modules() if type(module).__name__ in LINEAR)
    return {name.rpartition(".")[2] for name in linear if f"{name}.weight" in inside}


def _merge(model: nn.Module, folder: Path) -> nn.Module:
    adapted: Any = model
    adapted.save_pretrained(folder / "adapter")
    merged: nn.Module = adapted.merge_and_unload()
    return merged


def _merge_dequantized(model: nn.Module, folder: Path) -> nn.Module:
    """Merges into the weights that the adapters were trained on, which are not those of the checkpoint any more."""
    import torch  # noqa: PLC0415
    from peft import PeftModel  # noqa: PLC0415

    adapted: Any = model
    adapted.save_pretrained(folder / "adapter")
    plain: Any = adapted.unload().dequantize(dtype=torch.float32)
    merged: nn.Module = PeftModel.from_pretrained(plain, folder / "adapter").merge_and_unload()
    return merged
