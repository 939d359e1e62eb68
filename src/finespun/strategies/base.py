"""The Strategy protocol: what trains, from which epoch on, at which share of the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


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


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A model made ready, and what trains in it. Parameters in no group stay frozen.

    `merge` turns the trained model into a plain transformers model, writing what it merged into the folder it is given.
    """

    model: nn.Module
    groups: Sequence[Group]
    merge: Callable[[nn.Module, Path], nn.Module] | None = None


class Strategy(Protocol):
    """A way of fine-tuning. It is given plain options, checks them itself, and knows no trainer."""

    def tune(self, model: nn.Module) -> Tuning:
        """Returns the model, adapted where the strategy says so, and its groups from bottom to top."""
