"""Shared by the tests of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from finespun.models.cpu.attention import quick_attention
from finespun.models.cpu.dropout import drop_quickly

Quicken = Callable[[nn.Module, Mapping[str, torch.Tensor]], None]


@pytest.fixture
def quicken() -> Iterator[Quicken]:
    """Gives a model our dropout and, until the test ends, our attention."""
    with ExitStack() as stack:

        def change(model: nn.Module, example: Mapping[str, torch.Tensor]) -> None:
            drop_quickly(model)
            stack.enter_context(quick_attention(model, example))

        yield change
