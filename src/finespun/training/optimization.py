"""Optimizers and schedules: factories from their sections, what each parameter group is given, the seed of each step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from finespun.config import targets
from finespun.config.sections import OptimizerConfig, SchedulerConfig
from finespun.errors import ConfigError

if TYPE_CHECKING:
    from finespun.strategies.base import Group

OptimizerFactory = Callable[["Sequence[Group]"], Optimizer]
SchedulerFactory = Callable[[Optimizer, int], LRScheduler]
ELEMENTWISE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)  # they see numbers, not shapes


def step_seed(seed: int, epoch: int, batch: int, rank: int) -> int:
    """Returns the seed of one forward pass: dropout is a function of where training is, not of how it got there."""
    text = f"{seed}/{epoch}/{batch}/{rank}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed_draws(seed: int, device: torch.device) -> None:
    """Seeds what is drawn on a device: `torch.manual_seed` would keep a call stack for CUDA in each step, at 0.4 ms."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model is to be trained; `r_drop` is the weight of what two outputs of a row differ by."""

    groups: Sequence[Group]
    optimizer: OptimizerFactory
    scheduler: SchedulerFactory
    total_steps: int
    seed: int
    r_drop: float | None


def make_optimizer(config: OptimizerConfig, groups: Sequence[Group], *, also: Sequence[str] = ()) -> Optimizer:
    """Returns the optimizer of a model's groups; `also` is `runtime.allow_targets`.

    Raises:
        ConfigError: the optimizer refuses its options.
    """
    options = config.options
    parameter_groups = split_by_decay(groups, lr=config.lr, weight_decay=options.pop("weight_decay", 0.0))
    try:
        optimizer: Optimizer = targets.load("optimizer", config.target, also=also)(parameter_groups, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError([f"optimizer: {config.target} refuses {options}: {error}; correct conf/optimizer/"]) from error
    return optimizer


def split_by_decay(groups: Sequence[Group], *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Returns torch's parameter groups: biases and norms (tensors of one dimension) are not decayed."""
    found = []
    for group in groups:
        for decayed in (True, False):
            parameters = [p for p in group.parameters.values() if (p.ndim > 1) == decayed]
            if parameters:
                found.append({
                    "name": f"{group.name}/{'decayed' if decayed else 'not_decayed'}",
                    "params": parameters,
                    "lr": lr * group.lr_scale,
                    "weight_decay": weight_decay if decayed else 0.0,
                })  # fmt: skip
    return found


def lay_side_by_side(optimizer: Optimizer) -> torch.Tensor | None:
    """Lays a new optimizer's parameters into one vector, and their gradients into another, which is returned.

    Clipping, a step and zeroing then are an operation or two each, whatever the number of parameters. Parameters become views:
    who is done with them takes copies. Returns None, and changes nothing, where they are of several kinds or the optimizer is
    not known to treat each number by itself.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if type(optimizer) not in ELEMENTWISE or len({(p.dtype, p.device) for p in parameters}) > 1:
        return None
    sizes = [parameter.numel() for parameter in parameters]
    values = torch.cat([parameter.detach().flatten() for parameter in parameters])
    gradients = torch.zeros_like(values)
    for parameter, value, gradient in zip(parameters, torch.split(values, sizes), torch.split(gradients, sizes), strict=True):
        parameter.data, parameter.grad = value.view_as(parameter), gradient.view_as(parameter)
    start = 0
    for group in optimizer.param_groups:
        end = start + sum(parameter.numel() for parameter in group["params"])
        joined = torch.nn.Parameter(values[start:end])
        joined.grad = gradients[start:end]
        group["params"], start = [joined], end
    return gradients


def make_scheduler(
    config: SchedulerConfig, monitor_mode: str, optimizer: Optimizer, total_steps: int, *, also: Sequence[str] = ()
) -> LRScheduler:
    """Returns the schedule; what is known of the run goes to whichever parameters the schedule has for it.

    Raises:
        ConfigError: the schedule refuses its options.
    """
    accepted = targets.signature(config.target) or set()
    known = {
        "num_training_steps": total_steps,
        "total_steps": total_steps,
        "num_warmup_steps": config.warmup(total_steps),
        "max_lr": [group["lr"] for group in optimizer.param_groups],
        "mode": monitor_mode,
    }
    filled = {name: value for name, value in known.items() if name in accepted}
    try:
        scheduler: LRScheduler = targets.load("scheduler", config.target, also=also)(optimizer, **filled, **config.options)
    except (TypeError, ValueError) as error:
        raise ConfigError([f"scheduler: {config.target} refuses {config.options}: {error}; correct conf/scheduler/"]) from error
    return scheduler


def batches_of_epoch(batches: int, arguments: Mapping[str, Any]) -> int:
    """Returns how many of an epoch's batches are trained on, as Lightning reads `limit_train_batches` (a number or a share)."""
    limit = arguments.get("limit_train_batches", 1.0)
    return min(batches, limit if isinstance(limit, int) else int(batches * limit))
