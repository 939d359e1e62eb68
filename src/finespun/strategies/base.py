"""The Strategy protocol: what trains, from which epoch on, at which share of the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters, by their full names, that train together from epoch `from_epoch` (counted from 0) on."""

    name: str
    parameters: dict[str, nn.Parameter]
    lr_scale: float = 1.0
    from_epoch: int = 0

    @property
    def size(self) -> int:
        """How many numbers train."""
        return sum(parameter.numel() for parameter in self.parameters.values())


class Linear(NamedTuple):
    """What a linear layer is found to hold: weight (outputs, width), bias (outputs,)."""

    weight: Matrix
    bias: Matrix


class Trees(NamedTuple):
    """A random forest in place of a linear layer; the arrays are those of `models.forest.Forest`."""

    kind: str
    depth: int
    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    branches: NDArray[np.int64]
    values: Matrix


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A linear layer that is not trained in steps: `solve(features, targets, row_weights, outputs)` says what it becomes."""

    name: str
    solve: Callable[..., Linear | Trees]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A model made ready, and what trains in it. Parameters in no group stay frozen.

    `merge` turns the trained model into a plain transformers model, writing what it merged into the folder it is given.
    With a `solution` there are no gradient steps.
    """

    model: nn.Module
    groups: Sequence[Group]
    merge: Callable[[nn.Module, Path], nn.Module] | None = None
    solution: Solution | None = None


class Strategy(Protocol):
    """A way of fine-tuning. It is given plain options, checks them itself, and knows no trainer.

    `refuses` says of options of other strategies why they make no sense with this one; `four_bit`, whether the model is to be
    loaded in 4 bits.
    """

    refuses: Mapping[str, str]
    four_bit: bool

    def tune(self, model: nn.Module) -> Tuning:
        """Returns the model, adapted where the strategy says so, and its groups from bottom to top."""
