"""Attention on CPUs: with dropout it is written as plain products.

That is what torch's fused kernel would do, without its checks for rows that are masked whole. With it, the last block need
compute no more than is read of it (`last_block`). A step of MiniLM takes 7 % less CPU time in float32, 13 % in bf16, and with
the last block 19 % and 12 % less again (`benchmarks/cpu_kernels.py`).

Language models have no dropout. Going back through the fused kernel costs two to four times as much in bf16 as through plain
products, on rows of up to 512 tokens (in float32 the same): their attention is transformers' own `eager` while they train.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from finespun.failures import REFUSALS
from finespun.models.cpu.dropout import kept
from finespun.models.cpu.last_block import narrow

ATTENTION = "finespun_cpu"
SHORT = 512  # tokens of a row; longer ones would need much memory for length x length numbers
TOLERANCE = 1e-4  # of logits, in eval mode
SPECIAL = ("position_bias", "cache", "softcap")  # options of attention that only transformers' own function knows


@contextmanager
def quick_attention(model: nn.Module, example: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While the context lasts, a model has this module's attention, and its last block is narrowed where it can be.

    The model is left in eval mode. Each change is tried on an example, and undone where the model then fails or says something
    else: some build their masks by the name of their attention. Weights and saved files stay what they are.
    """
    parts = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    hooks: list[RemovableHandle] = []
    if parts and all(_name(part) == "sdpa" for part in parts):
        expected = _logits(model, example)
        AttentionInterface.register(ATTENTION, attention)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        parts[0].set_attn_implementation(ATTENTION)
        if _name(parts[0]) != ATTENTION or not _says(expected, model, example):
            parts[0].set_attn_implementation("sdpa")
        else:
            hooks = narrow(model, example)
            if not _says(expected, model, example):
                _remove(hooks)
    try:
        yield
    finally:
        _remove(hooks)
        if parts and _name(parts[0]) == ATTENTION:
            parts[0].set_attn_implementation("sdpa")


@contextmanager
def eager_attention(model: nn.Module, *, on: bool) -> Iterator[None]:
    """While the context lasts, a model's attention is plain products: of one that has torch's fused kernel otherwise."""
    parts = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    changed = on and bool(parts) and all(_name(part) == "sdpa" for part in parts)
    if changed:
        parts[0].set_attn_implementation("eager")
    try:
        yield
    finally:
        if changed:
            parts[0].set_attn_implementation("sdpa")


def _remove(hooks: list[RemovableHandle]) -> None:
    for hook in hooks:
        hook.remove()


def _name(part: PreTrainedModel) -> str:
    return str(part.config._attn_implementation)  # noqa: SLF001  (transformers has no other way to it)


def _says(expected: torch.Tensor, model: nn.Module, example: Mapping[str, torch.Tensor]) -> bool:
    try:
        found = _logits(model, example)
    except REFUSALS:
        return False  # it knows its own attentions alone
    return found.shape == expected.shape and torch.allclose(found, expected, atol=TOLERANCE)


def _logits(model: nn.Module, example: Mapping[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(**example).logits
    return logits


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
