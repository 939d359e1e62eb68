"""The Strategy protocol: which parameters train, in which groups, at which share of the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Group:
    """Parameters that share a rate; `parameters` maps their full names."""

    name: str
    parameters: dict[str, nn.Parameter]
    lr_scale: float = 1.0


class Strategy(Protocol):
    """A way of fine-tuning. Parameters in no group stay frozen."""

    def groups(self, model: nn.Module) -> list[Group]:
        """Returns what trains, from the model's bottom to its top."""
