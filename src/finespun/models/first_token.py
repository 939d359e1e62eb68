"""What is read of the last block is all that need be computed of it.

A classifier on the first token reads one position of the last block's output. The others' queries, feed-forward layers and
norms (five sixths of a block's products) change nothing: only their keys and values do. So the block is given the first token
alone, and its keys and values are made from all of them. Names, weights and saved files stay what they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from finespun.errors import ModelError
from finespun.strategies.anatomy import dissect

KEYS, VALUES = {"key", "k_lin", "k_proj"}, {"value", "v_lin", "v_proj"}  # what architectures call these projections


def narrow(model: nn.Module) -> list[RemovableHandle]:
    """Makes the last block compute its first token alone, in place; returns what undoes it, nothing where it cannot be.

    Attention has to be `dropout.attention`, which puts the keys of all tokens back into their shape. Whether the model's
    answers stay the same is for the caller to try.
    """
    try:
        block = model.get_submodule(dissect(model).block_names[-1])
    except ModelError:
        return []
    found = [[module for name, module in block.named_modules() if name.rpartition(".")[2] in names] for names in (KEYS, VALUES)]
    if [len(each) for each in found] != [1, 1]:
        return []
    tokens: list[torch.Tensor] = []  # of the last call, also while a checkpointed block is computed again

    def keep(_block: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        tokens[:] = [given[0] if given else options["hidden_states"]]
        first = tokens[0][:, :1]
        return ((first, *given[1:]), options) if given else (given, options | {"hidden_states": first})

    handles = [module.register_forward_pre_hook(lambda *_: tuple(tokens)) for module in (found[0][0], found[1][0])]
    return [*handles, block.register_forward_pre_hook(keep, with_kwargs=True)]
