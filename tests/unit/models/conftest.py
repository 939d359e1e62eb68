"""Shared by the tests of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from finespun.models.cpu.kernels import cpu_kernels

Quicken = Callable[[nn.Module, Mapping[str, torch.Tensor]], None]


@pytest.fixture
def quicken() -> Iterator[Quicken]:
    """Gives a model our dropout and, until the test ends, our attention."""
    with ExitStack() as stack:

        def change(model: nn.Module, example: Mapping[str, torch.Tensor]) -> None:
            stack.enter_context(cpu_kernels(model, example, on=True))

        yield change
