"""Which parameters train in which epoch: a function of the epoch alone, so that resuming and DDP need to remember nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finespun.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from finespun.strategies.base import Group


def freeze_all_but(model: nn.Module, groups: Sequence[Group]) -> None:
    """Parameters train if, and only if, they are in a group.

    Raises:
        ConfigError: nothing would train, or nothing would in the first epoch.
    """
    trained = {id(parameter) for group in groups for parameter in group.parameters.values()}
    if not trained:
        raise ConfigError(["strategy: trains no parameter of this model; choose another in conf/strategy/"])
    if all(group.from_epoch for group in groups if group.parameters):
        raise ConfigError(["strategy: trains no parameter in the first epoch; let one group begin at epoch 0"])
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)


def begin_epoch(model: nn.Module, groups: Sequence[Group], epoch: int) -> None:
    """Lets the groups of an epoch train and puts frozen parts into eval mode: no dropout, no moving statistics."""
    for group in groups:
        for parameter in group.parameters.values():
            parameter.requires_grad_(epoch >= group.from_epoch)
    _set_modes(model)


def _set_modes(module: nn.Module) -> None:
    own = list(module.parameters())
    if own and not any(parameter.requires_grad for parameter in own):
        module.eval()
        return
    module.training = True
    for child in module.children():
        _set_modes(child)


def describe(model: nn.Module, groups: Sequence[Group], max_epochs: int) -> list[str]:
    """Returns a line a phase: from which epoch on, which groups, how many parameters of how many."""
    total = sum(parameter.numel() for parameter in model.parameters())
    starts = sorted({group.from_epoch for group in groups})
    lines = []
    for start in starts:
        names = [group.name for group in groups if group.from_epoch <= start]
        size = sum(group.size for group in groups if group.from_epoch <= start)
        late = " (never reached: trainer.max_epochs is " + str(max_epochs) + ")" if start >= max_epochs else ""
        lines.append(f"epoch {start}: {', '.join(names)}: {size:,} of {total:,} parameters ({size / total:.1%}){late}")
    return lines
