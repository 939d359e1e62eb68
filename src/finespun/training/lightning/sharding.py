"""FSDP2: a model in shards, one on each device (torch's `fully_shard`), and the whole model again on rank zero.

Rank zero alone reads weights. The others are given the model's modules without numbers, and each tensor's shard as rank zero
hands it round, so that no other process ever holds more than one block, or one tensor, whole.
"""

from __future__ import annotations

import io
import pickle
import socket
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm
from transformers.dynamic_module_utils import init_hf_modules

from finespun.errors import ConfigError, MachineError, first_of
from finespun.failures import REFUSALS
from finespun.masking import one_line
from finespun.strategies.base import Group, Tuning
from finespun.training.lightning.devices import Hardware
from finespun.training.lightning.launching import rank, world_size
from finespun.training.optimization import OptimizerFactory

Made = TypeVar("Made")
BLOCKS_SHARE = 0.1  # of a model's parameters that a list of blocks holds at least


def connect(hardware: Hardware) -> None:
    """Opens the process group that Lightning then finds open."""
    if not dist.is_initialized():
        cuda = hardware.accelerator == "cuda"
        if cuda:
            torch.cuda.set_device(hardware.device)
        dist.init_process_group("nccl" if cuda else "gloo", device_id=hardware.device if cuda else None)


def from_rank_zero(make: Callable[[], Made], hardware: Hardware) -> Made:
    """Returns what rank zero makes; with shards, the others make nothing and are given it with parameters without numbers.

    On several nodes, which need not share a disk, the others are given it whole.
    """
    if not hardware.sharded and hardware.nodes == 1:
        return make()
    connect(hardware)
    made = make() if rank() == 0 else None
    packed = _outline if hardware.sharded else pickle.dumps
    sent = [packed(made) if rank() == 0 else None]
    dist.broadcast_object_list(sent)
    assert sent[0] is not None
    if made is None:
        init_hf_modules()  # type: ignore[no-untyped-call]  # code that came with a checkpoint is found, as rank zero finds it
        made = pickle.loads(sent[0])  # noqa: S301  (rank zero of this very job has written it)
    return made


def require_same_inputs(inputs: Mapping[str, str], hardware: Hardware) -> None:
    """Makes sure that all nodes read the same.

    Args:
        inputs: what this one reads, and its digest.
        hardware: the devices of all.

    Raises:
        MachineError: another node has another file, or another version of the code.
    """
    if hardware.nodes == 1:
        return
    connect(hardware)
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, (socket.gethostname(), dict(inputs)))
    there = found[0][1]
    for host, read in found[1:]:
        other = [name for name in there.keys() | read.keys() if there.get(name) != read.get(name)]
        if other:
            raise MachineError(
                f"the node {host} reads another {first_of(sorted(other))} than the node {found[0][0]}; give all nodes the"
                " same commit and the same data (a shared folder, or git pull and dvc pull on each)"
            )


class _Outliner(pickle.Pickler):
    """Pickles parameters as their shape and kind alone."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, nn.Parameter):
            return _empty, (obj.shape, obj.dtype, obj.requires_grad)
        return NotImplemented


def _empty(shape: torch.Size, dtype: torch.dtype, requires_grad: bool, device: Any = "meta") -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=dtype, device=device), requires_grad=requires_grad)


def _outline(made: Any) -> bytes:
    buffer = io.BytesIO()
    _Outliner(buffer).dump(made)
    return buffer.getvalue()


class Shards:
    """A model and what trains in it, shared out over all devices. `tuning` is the sharded one, its groups found by name."""

    def __init__(self, tuning: Tuning, hardware: Hardware, *, release: bool = False) -> None:
        """Shares out rank zero's model; the others' is its outline.

        Args:
            tuning: on rank zero with numbers, on the others as `from_rank_zero` gives it; it is not changed.
            hardware: the devices.
            release: frees each of rank zero's tensors when it has been handed round: `tuning` is then of no more use.

        Raises:
            ConfigError: sharding this model would change its results.
        """
        connect(hardware)
        _refuse(tuning.model)
        self._outline = _outline(replace(tuning, solution=None))
        sharded: Tuning = pickle.loads(self._outline)  # noqa: S301  (written a line above)
        model = sharded.model
        mesh = init_device_mesh(hardware.device.type, (world_size(),))
        self.units = _blocks(model)
        for name in [*self.units, ""]:
            _shard(model.get_submodule(name), mesh, hardware.device)
        model.to(hardware.device)  # buffers
        numbers = dict(tuning.model.named_parameters())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                hand_round(numbers[name].detach() if rank() == 0 else None, parameter)
                if release and rank() == 0:
                    numbers[name].data = numbers[name].new_empty(0)
        found = dict(model.named_parameters())
        self.tuning = replace(
            sharded,
            groups=[replace(each, parameters={name: found[name] for name in each.parameters}) for each in sharded.groups],
        )

    def __str__(self) -> str:
        size = sum(parameter.numel() for parameter in self.tuning.model.parameters())
        mine = sum(p.to_local().numel() for p in self.tuning.model.parameters() if isinstance(p, DTensor))
        units = f"{len(self.units)} blocks are gathered one at a time" if self.units else "the model is gathered as one"
        return f"{mine:,} of {size:,} parameters on this device; {units}"

    def whole(self) -> Tuning:
        """Returns the model with all numbers, on the CPU, on rank zero; its outline on the others."""
        outline: Tuning = pickle.loads(self._outline)  # noqa: S301  (written by this object)
        with torch.no_grad():
            numbers = {name: whole(parameter) for name, parameter in self.tuning.model.named_parameters()}
            buffers = {name: buffer.cpu() for name, buffer in self.tuning.model.named_buffers()}
        if rank():
            return outline
        filled = {id(p): nn.Parameter(numbers[name], p.requires_grad) for name, p in outline.model.named_parameters()}
        tuning: Tuning = deepcopy(outline, filled)  # what deepcopy takes for copied: tied ones stay tied
        for name, buffer in tuning.model.named_buffers():
            buffer.copy_(buffers[name])
        return tuning


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor's whole, on the CPU, on rank zero, and an empty one on the others: nothing that they need keep."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.cpu() if rank() == 0 else full.new_empty(0)


def hand_round(full: torch.Tensor | None, target: torch.Tensor) -> None:
    """Fills a tensor, sharded or not, with rank zero's `full`, which the others need not have."""
    device = target.device
    given = torch.empty(target.shape, dtype=target.dtype, device=device) if full is None else full.to(device, target.dtype)
    if isinstance(target, DTensor):
        target.to_local().copy_(distribute_tensor(given, target.device_mesh, target.placements).to_local())
    else:
        dist.broadcast(given, 0)
        target.copy_(given)


def _refuse(model: nn.Module) -> None:
    kind = type(model).__name__
    if any(isinstance(module, _BatchNorm) and module.track_running_stats for module in model.modules()):
        reason = f"{kind} has batch norms, and each device would keep running statistics of its own"
        raise ConfigError([f"runtime.strategy: fsdp: {reason}; set runtime.strategy: ddp"])
    scalar = next((name for name, parameter in model.named_parameters() if not parameter.ndim), None)
    if scalar:
        raise ConfigError([f"runtime.strategy: fsdp: {kind} has {scalar}, a single number; set runtime.strategy: ddp"])


def require_steps(make: OptimizerFactory, name: str, hardware: Hardware) -> None:
    """Makes sure, on a matrix and a vector, that an optimizer's step can be computed on shards.

    Raises:
        ConfigError: torch knows no way to do so.
    """
    mesh = init_device_mesh(hardware.device.type, (world_size(),))
    tensors = {"matrix": torch.ones(2 * world_size(), 4), "vector": torch.ones(4)}
    parameters = {
        key: nn.Parameter(distribute_tensor(each.to(hardware.device), mesh, [Shard(0)])) for key, each in tensors.items()
    }
    for parameter in parameters.values():
        parameter.grad = parameter.detach().clone()
    optimizer = make([Group(name="tried", parameters=parameters)])
    try:
        optimizer.step(lambda: 0.0)
    except (*REFUSALS, ArithmeticError) as error:
        reason = one_line(error).partition(". ")[0][:150]
        remedy = "take adamw, adam or sgd, or set runtime.strategy: ddp"
        raise ConfigError([f"optimizer: {name} cannot take a step of a model in shards ({reason}); {remedy}"]) from error


def _blocks(model: nn.Module) -> list[str]:
    """Returns names of the blocks that are gathered one at a time; none where there are none, or where they share weights.

    They are what the outermost lists of modules hold, of which a model with encoder and decoder has two.
    """
    enough = BLOCKS_SHARE * _size(model)
    names: list[str] = []
    for path, module in model.named_modules():
        listed = isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1 and _size(module) >= enough
        if path and listed and not any(path.startswith(f"{name}.") for name in names):
            names += [f"{path}.{child}" for child, each in module.named_children() if _size(each)]
    units: dict[int, set[str]] = {}
    for full, parameter in model.named_parameters(remove_duplicate=False):
        unit = next((name for name in names if full.startswith(f"{name}.")), "")
        units.setdefault(id(parameter), set()).add(unit)
    return names if all(len(unit) == 1 for unit in units.values()) else []


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _shard(part: nn.Module, mesh: DeviceMesh, device: torch.device) -> None:
    """Gives a part of a model memory for its numbers, and keeps this device's share of it."""
    made: dict[int, nn.Parameter] = {}
    for full, parameter in list(part.named_parameters(remove_duplicate=False)):
        if parameter.is_meta:
            new = made.setdefault(id(parameter), _empty(parameter.shape, parameter.dtype, parameter.requires_grad, device))
            owner, _, name = full.rpartition(".")
            part.get_submodule(owner).register_parameter(name, new)
    fully_shard(part, mesh=mesh)
