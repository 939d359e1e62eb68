"""Lightning's strategies for models in shards, and for copies on several nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from pytorch_lightning.strategies.strategy import Strategy
from torch.optim import Optimizer

from finespun.training.lightning.sharding import hand_round, whole


class FarCopies(DDPStrategy):
    """Copies of the model on several nodes, which need not share a disk: rank zero alone reads checkpoints."""

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Returns what rank zero has read, on each rank."""
        sent = [super().load_checkpoint(checkpoint_path, weights_only) if self.is_global_zero else None]
        dist.broadcast_object_list(sent, device=torch.device("cpu") if dist.get_backend() == "gloo" else self.root_device)
        assert sent[0] is not None
        return sent[0]


class Sharded(ModelParallelStrategy):
    """Gathers states on rank zero and hands them round from there.

    A checkpoint is what one device would have written: verified, moved into place and pruned by the Store, and taken up by any
    number of devices with either strategy. Lightning's own sharded checkpoints are folders that it writes past the Store.
    """

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether the Trainer gives checkpoints to `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Returns the whole module's weights on rank zero; to be called on all ranks, as all of these."""
        assert self.lightning_module is not None
        return {name: whole(tensor) for name, tensor in self.lightning_module.state_dict().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Returns the optimizer's whole state on rank zero."""
        plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        found = plain.state_dict()
        found["state"] = {key: _map(values, whole) for key, values in found["state"].items()}
        return found

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Writes a checkpoint through the Store."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a checkpoint on rank zero; the others are given it with weights and optimizer states without numbers."""
        read: dict[str, Any] = {}
        if self.is_global_zero:
            read = Strategy.load_checkpoint(self, checkpoint_path, weights_only)
        outlined = {key: each for key, each in read.items() if key not in {"state_dict", "optimizer_states"}}
        states = [
            {**each, "state": {key: _map(values, _without_numbers) for key, values in each["state"].items()}}
            for each in read.get("optimizer_states", [])
        ]
        sent = self.broadcast({**outlined, "state_dict": {}, "optimizer_states": states})
        return read if self.is_global_zero else sent

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Hands the weights round."""
        assert self.lightning_module is not None
        with torch.no_grad():
            for name, target in self.lightning_module.state_dict().items():
                hand_round(checkpoint["state_dict"][name] if self.is_global_zero else None, target)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Hands the optimizer's state round: what has a parameter's shape is sharded like it."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for number, values in state["state"].items():
                for name, full in values.items():
                    if isinstance(full, torch.Tensor):
                        values[name] = self._shared(full, parameters[number])
            optimizer.load_state_dict(state)

    def _shared(self, full: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        like = full.shape == parameter.shape
        target = torch.empty_like(parameter, dtype=full.dtype) if like else torch.empty(full.shape, dtype=full.dtype)
        if not like and self.root_device.type != "cpu":
            target = target.to(self.root_device)
        with torch.no_grad():
            hand_round(full if self.is_global_zero else None, target)
        return target.detach()


def _map(values: Mapping[str, Any], change: Any) -> dict[str, Any]:
    return {name: change(value) if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def _without_numbers(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
