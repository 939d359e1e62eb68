"""The cross-entropy of target tokens, without ever holding rows x length x vocabulary numbers where the vocabulary is large."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

IGNORED = -100  # transformers' word for a token without a target; losses and scores skip it
MOST = 2**24  # logits at once; above, they are made of a chunk of tokens, and made again for the gradient
TOLERANCE = 1e-4
FUSED_ON = {"cuda"}  # kinds of device that liger-kernel is written for

_with_more: WeakSet[nn.Module] = WeakSet()  # output layers whose model does more to logits than they do

Losses = dict[str, torch.Tensor]


def token_losses(
    model: Any, inputs: dict[str, torch.Tensor], targets: torch.Tensor, places: torch.Tensor | None = None, *,
    uniform: bool = False,
) -> Losses:  # fmt: skip
    """Runs a language model and returns the losses of its target tokens.

    Args:
        model: of transformers, with an output layer over a vocabulary.
        inputs: its keyword arguments.
        targets: (rows, targets), token ids or IGNORED.
        places: (rows, targets), the position in the output that predicts each target; None: they are the same positions.
        uniform: also return `uniform`, the mean loss over the whole vocabulary, for label smoothing.

    Returns:
        `losses`, (rows, targets), 0 where ignored, and `right`, whether the target is the likeliest token.
    """
    layer = model.get_output_embeddings()
    words = int(layer.weight.shape[0]) if layer is not None and hasattr(layer, "weight") else 0
    in_vain = places is not None or _may_fuse(layer, uniform=uniform)  # logits of prompts, or any
    in_vain = in_vain and getattr(model, "_compiled_call_impl", None) is None
    if words and layer not in _with_more and (in_vain or words * targets.numel() > MOST):
        found = _in_chunks(model, layer, inputs, targets, places, uniform=uniform, tokens=max(1, MOST // words))
        if found is not None:
            return found
        _with_more.add(layer)
    logits = _at(model(**inputs, use_cache=False).logits, places)
    return _shaped(_scored(logits[targets != IGNORED], targets[targets != IGNORED], uniform=uniform), targets)


def _in_chunks(
    model: Any, layer: nn.Module, inputs: dict[str, torch.Tensor], targets: torch.Tensor, places: torch.Tensor | None, *,
    uniform: bool, tokens: int,
) -> Losses | None:  # fmt: skip
    """Lets the output layer see one position a row, and then the targets' alone, in chunks where they are many.

    None where logits are more than its output.
    """
    kept: list[torch.Tensor] = []

    def keep(_layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        kept.append(given[0])
        return (given[0][:, :1], *given[1:])

    handle = layer.register_forward_pre_hook(keep)
    try:
        few = model(**inputs, use_cache=False).logits
    finally:
        handle.remove()
    if len(kept) != 1:
        return None
    with torch.no_grad():
        if not torch.allclose(layer(kept[0][:, :1]), few, atol=TOLERANCE):
            return None
    known = targets != IGNORED
    hidden, wanted = _at(kept[0], places)[known], targets[known]
    if _may_fuse(layer, uniform=uniform):
        return _shaped(_fused(layer, hidden, wanted), targets)

    def score(part: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _scored(layer(part), ids, uniform=uniform)

    again = len(hidden) > tokens and torch.is_grad_enabled() and hidden.requires_grad
    parts = [
        checkpoint(score, *each, use_reentrant=False) if again else score(*each)
        for each in zip(torch.split(hidden, tokens), torch.split(wanted, tokens), strict=True)
    ]
    return _shaped(tuple(torch.cat(each) for each in zip(*parts, strict=True)), targets)


def _may_fuse(layer: Any, *, uniform: bool) -> bool:
    """Whether liger-kernel, where it is installed, can take over an output layer with the loss."""
    plain = type(layer) is nn.Linear and not hasattr(layer.weight, "device_mesh")  # no adapter, no shards
    return plain and not uniform and layer.weight.device.type in FUSED_ON and _kernel() is not None


@lru_cache
def _kernel() -> Any:
    """Returns Liger's fused layer and loss (Hsu et al., 2024), which holds some rows' logits at a time; None without it."""
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # noqa: PLC0415  (an extra)
    except ImportError:
        return None
    return LigerFusedLinearCrossEntropyLoss(reduction="none", accum_dtype=torch.float32, return_predicted_tokens=True)


def _fused(layer: Any, hidden: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Returns (tokens,) each: loss, and whether the likeliest is the right one."""
    found = _kernel()(layer.weight, hidden, ids, layer.bias)
    return found.loss, (found.predicted_tokens == ids).float()


def _at(values: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
    """Returns (rows, targets, width) of values (rows, length, width)."""
    if places is None:
        return values
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[2]))


def _scored(logits: torch.Tensor, ids: torch.Tensor, *, uniform: bool) -> tuple[torch.Tensor, ...]:
    """Returns (tokens,) each: loss, whether the likeliest is the right one, and the mean loss over the vocabulary."""
    logits = logits.float()
    losses = functional.cross_entropy(logits, ids, reduction="none")
    right = (logits.argmax(dim=-1) == ids).float()
    return (losses, right, -logits.log_softmax(-1).mean(-1)) if uniform else (losses, right)


def _shaped(parts: tuple[torch.Tensor, ...], targets: torch.Tensor) -> Losses:
    known = targets != IGNORED
    names = ("losses", "right", "uniform")
    zeros = torch.zeros(targets.shape, device=targets.device)
    return {name: zeros.masked_scatter(known, part) for name, part in zip(names, parts, strict=False)}
