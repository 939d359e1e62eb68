"""Dropout on CPUs. Torch draws a mask one number after another, which costs as much as a good part of the products.

Here 64 random bits make four elements' chances, and the attention that has dropout is written as plain products: what
torch's fused kernel would do, without its checks for rows that are masked whole. Draws come from torch's own generator, so
that seeds and recomputed activations (gradient checkpointing) hold. `benchmarks/model_flops.py` shows what it is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from finespun.models.first_token import narrow

LEVELS = 2**16  # of a chance: 16 bits
ATTENTION = "finespun_cpu"
TOLERANCE = 1e-4  # of logits, in eval mode
SPECIAL = ("position_bias", "cache", "softcap")  # options of attention that only transformers' own function knows


def drop_quickly(model: nn.Module) -> None:
    """Puts this module's dropout into a model, in place; weights and saved files stay what they are."""
    ours: dict[int, Dropout] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if type(module) is nn.Dropout:
            model.set_submodule(name, ours.setdefault(id(module), Dropout(module.p)))


def attend_quickly(model: nn.Module, example: Mapping[str, torch.Tensor]) -> None:
    """Puts this module's attention into a model, in place, once, and leaves out of the last block what nothing reads.

    The model is left in eval mode. Whatever makes it, tried on an example, fail or say something else is undone: some build
    their masks by the name of their attention.
    """
    parts = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    if not parts or any(part.config._attn_implementation != "sdpa" for part in parts):  # noqa: SLF001
        return
    expected = _logits(model, example)
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    parts[0].set_attn_implementation(ATTENTION)
    if not _says(expected, model, example):
        parts[0].set_attn_implementation("sdpa")
        return
    hooks = narrow(model)
    if hooks and not _says(expected, model, example):
        for hook in hooks:
            hook.remove()


def _says(expected: torch.Tensor, model: nn.Module, example: Mapping[str, torch.Tensor]) -> bool:
    try:
        found = _logits(model, example)
    except (LookupError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False  # it knows its own attentions alone
    return found.shape == expected.shape and torch.allclose(found, expected, atol=TOLERANCE)


def _logits(model: nn.Module, example: Mapping[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(**example).logits
    return logits


def kept(shape: torch.Size, p: float, dtype: torch.dtype) -> torch.Tensor:
    """Returns what dropout multiplies a tensor of this shape with: 0 with chance `p` (to 1 / 65,536), else 1 / (1 - p)."""
    dropped, count = min(round(p * LEVELS), LEVELS - 1), math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    keep = bits.view(torch.int16)[:count].view(shape) >= dropped - LEVELS // 2
    return keep.to(dtype).mul_(LEVELS / (LEVELS - dropped))


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` with masks of `kept`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  (torch's name)
        """Returns a tensor like `input`."""
        if not (self.training and 0 < self.p < 1) or input.device.type != "cpu":
            return super().forward(input)
        return input * kept(input.shape, self.p, input.dtype)


def attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, **options: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention as transformers calls it: (rows, heads, length, width) each; returns (rows, length, heads, width).

    Whatever has no dropout, is causal, shares keys or has a bias of its own is left to torch's fused kernel. Where a block is
    narrowed (`first_token.narrow`), there is one query, and the keys of all tokens come as so many heads.
    """
    heads = query.shape[1]
    if key.shape[1] > heads:
        key, value = (each.view(len(each), -1, heads, each.shape[-1]).transpose(1, 2) for each in (key, value))
        attention_mask = None if attention_mask is None else attention_mask[:, :, :1]
    masked = attention_mask is not None and attention_mask.dtype == torch.bool
    whole = attention_mask is None and options.get("is_causal", getattr(module, "is_causal", True)) is False
    special = getattr(module, "num_key_value_groups", 1) > 1 or any(options.get(name) is not None for name in SPECIAL)
    if not 0 < dropout < 1 or special or not (masked or whole) or query.device.type != "cpu":
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )  # fmt: skip
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-1, -2)
    if attention_mask is not None:
        scores = scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    chances = scores.softmax(-1)
    return ((chances * kept(chances.shape, dropout, chances.dtype)) @ value).transpose(1, 2).contiguous(), None
