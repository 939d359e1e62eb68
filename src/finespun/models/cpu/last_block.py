"""What is read of the last block is all that need be computed of it.

A classifier on the first token reads one position of the last block's output. The others' queries, feed-forward layers and
norms (five sixths of a block's products) change nothing: only their keys and values do. So the block is given the first token
alone, and its keys and values are made from all of them. Names, weights and saved files stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from finespun.errors import ModelError
from finespun.strategies.anatomy import dissect, reads_first_token_alone

KEYS, VALUES = {"key", "k_lin", "k_proj"}, {"value", "v_lin", "v_proj"}  # what architectures call these projections
Given = tuple[tuple[Any, ...], dict[str, Any]]


def narrow(model: nn.Module, example: Mapping[str, torch.Tensor]) -> list[RemovableHandle]:
    """Makes the last block compute its first token alone, in place; returns what undoes it, nothing where it cannot be.

    It can where the answer's gradient says that no other token is read, and where keys and values are made of the very
    tensor that the block is given. Attention has to be `attention.attention`, which puts the keys of all tokens into shape.
    """
    try:
        block = model.get_submodule(dissect(model).block_names[-1])
    except ModelError:
        return []
    found = [[module for name, module in block.named_modules() if name.rpartition(".")[2] in names] for names in (KEYS, VALUES)]
    if [len(each) for each in found] != [1, 1]:
        return []
    key, value = found[0][0], found[1][0]
    if not _can_be_narrowed(model, block, key, value, example):
        return []
    tokens: list[torch.Tensor] = []  # of the last call, also while a checkpointed block is computed again

    def keep(_block: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> Given:
        tokens[:] = [_hidden(given, options)]
        first = tokens[0][:, :1]
        return ((first, *given[1:]), options) if given else (given, options | {"hidden_states": first})

    handles = [module.register_forward_pre_hook(lambda *_: tuple(tokens)) for module in (key, value)]
    return [*handles, block.register_forward_pre_hook(keep, with_kwargs=True)]


def _can_be_narrowed(
    model: nn.Module, block: nn.Module, key: nn.Module, value: nn.Module, example: Mapping[str, torch.Tensor]
) -> bool:
    seen: dict[nn.Module, Any] = {}

    def cut_off(module: nn.Module, given: tuple[Any, ...], options: dict[str, Any], output: Any) -> Any:
        seen[module] = _hidden(given, options)
        if module is not block or not torch.is_tensor(output):
            return None
        seen[model] = output.detach().requires_grad_()
        return seen[model]

    handles = [module.register_forward_hook(cut_off, with_kwargs=True) for module in (block, key, value)]
    try:
        with torch.enable_grad():
            logits = model.eval()(**example).logits
    finally:
        for handle in handles:
            handle.remove()
    same = torch.is_tensor(seen.get(block)) and seen.get(key) is seen[block] is seen.get(value)
    return same and model in seen and reads_first_token_alone(logits, seen[model])


def _hidden(given: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return given[0] if given else options.get("hidden_states")
