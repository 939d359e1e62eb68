"""The one way into this room: quicker dropout, attention and last blocks for a model that trains on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from finespun.models.cpu.attention import quick_attention
from finespun.models.cpu.dropout import drop_quickly


@contextmanager
def cpu_kernels(model: nn.Module, example: Mapping[str, torch.Tensor] | None = None, *, on: bool) -> Iterator[None]:
    """Gives a model on a CPU our dropout, for good; with an example of its inputs our attention too, while the context lasts.

    Nothing changes with `on` false or on another device. Weights, names and saved files stay what they are.
    """
    with ExitStack() as stack:
        if on and all(parameter.device.type == "cpu" for parameter in model.parameters()):
            drop_quickly(model)
            if example is not None:
                stack.enter_context(quick_attention(model, example))
        yield
