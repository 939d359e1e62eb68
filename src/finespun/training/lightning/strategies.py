"""Lightning's strategies for models in shards, and for copies on several nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from finespun.training.lightning.callbacks import StoreIO
from finespun.training.lightning.sharding import hand_round
from finespun.training.shard_files import kinds_of, put_back, read_shards, taken_apart, write_shards


class FarCopies(DDPStrategy):
    """Copies of the model on several nodes, which need not share a disk: rank zero alone reads checkpoints."""

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Returns what rank zero has read, on each rank."""
        sent = [super().load_checkpoint(checkpoint_path, weights_only) if self.is_global_zero else None]
        dist.broadcast_object_list(sent, device=torch.device("cpu") if dist.get_backend() == "gloo" else self.root_device)
        assert sent[0] is not None
        return sent[0]


class Sharded(ModelParallelStrategy):
    """Writes and reads checkpoints through the Store, each process its own shards.

    A checkpoint is a file with all that is small, and beside it a folder of shards: verified, moved into place and pruned
    together, and taken up by any number of devices with either strategy. Those of one device, or of copies, are taken up, too:
    rank zero reads them and hands them round.
    """

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether the Trainer gives checkpoints to `load_optimizer_state_dict`."""
        return True

    @property
    def _io(self) -> StoreIO:
        assert isinstance(self.checkpoint_io, StoreIO)
        return self.checkpoint_io

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Returns the module's weights, sharded as they are."""
        assert self.lightning_module is not None
        return dict(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Returns the optimizer's state, sharded as it is."""
        plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return dict(plain.state_dict())

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Writes shards on all ranks, then the rest on rank zero; to be called on all ranks, as all of these."""
        path, store = Path(filepath), self._io.store
        plain, shards = taken_apart(checkpoint)
        digests = write_shards(shards, store.shards_of(path))
        if self.is_global_zero:
            store.write(plain, path.name, best=storage_options or "", shards=digests)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a checkpoint on rank zero; the others are given it without shards, or a whole model's numbers."""
        read: dict[str, Any] = {}
        if self.is_global_zero:
            read = self._io.outline(checkpoint_path)
            read["shards"] = str(self._io.store.shards_of(Path(checkpoint_path))) if read.pop("sharded", False) else ""
        if self.broadcast(read.get("shards")):
            return self.broadcast(read)
        outlined = {key: each for key, each in read.items() if key not in {"state_dict", "optimizer_states"}}
        states = [
            {**each, "state": {key: _map(values, _without_numbers) for key, values in each["state"].items()}}
            for each in read.get("optimizer_states", [])
        ]
        sent = self.broadcast({**outlined, "state_dict": {}, "optimizer_states": states})
        return read if self.is_global_zero else sent

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Reads this process's shards, or hands the whole weights round."""
        assert self.lightning_module is not None
        state = self.lightning_module.state_dict()
        with torch.no_grad():
            if checkpoint["shards"]:
                sharded = {f"model/{name}": target for name, target in state.items() if isinstance(target, DTensor)}
                read_shards(sharded, Path(checkpoint["shards"]))
                state = {name: target for name, target in state.items() if f"model/{name}" not in sharded}
            for name, target in state.items():
                hand_round(checkpoint["state_dict"][name] if self.is_global_zero else None, target)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Reads this process's shards of the optimizer's state, or hands it round, sharded as the parameters are."""
        for number, (optimizer, state) in enumerate(zip(self.optimizers, checkpoint["optimizer_states"], strict=True)):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            if checkpoint["shards"]:
                found = _like(parameters, Path(checkpoint["shards"]), f"optimizer/{number}/")
                read_shards(found, Path(checkpoint["shards"]))
                put_back({"optimizer_states": checkpoint["optimizer_states"]}, found)
            else:
                for key, values in state["state"].items():
                    for name, full in values.items():
                        if isinstance(full, torch.Tensor):
                            values[name] = self._shared(full, parameters[key])
            optimizer.load_state_dict(state)

    def _shared(self, full: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        like = full.shape == parameter.shape
        target = torch.empty_like(parameter, dtype=full.dtype) if like else torch.empty(full.shape, dtype=full.dtype)
        if not like and self.root_device.type != "cpu":
            target = target.to(self.root_device)
        with torch.no_grad():
            hand_round(full if self.is_global_zero else None, target)
        return target.detach()


def _like(parameters: list[torch.Tensor], folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """Returns room for the state of an optimizer, sharded as its parameters are."""
    kinds = {name: dtype for name, (_, dtype) in kinds_of(folder).items() if name.startswith(prefix)}
    return {name: torch.empty_like(parameters[int(name.split("/")[2])], dtype=dtype).detach() for name, dtype in kinds.items()}


def _map(values: Mapping[str, Any], change: Any) -> dict[str, Any]:
    return {name: change(value) if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def _without_numbers(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
