"""Tensors in shards on disk: a folder with a safetensors file of each process, through torch.distributed.checkpoint.

Whoever reads them may be any number of processes; each reads what is its own. No file is a pickle.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from finespun.errors import MachineError
from finespun.failures import while_writing
from finespun.kept import file_digest
from finespun.training.lightning.launching import rank

PARTIAL = ".partial"


def write_shards(tensors: Mapping[str, torch.Tensor], folder: Path) -> dict[str, str]:
    """Writes each process's share into a folder that exists whole or not at all; to be called by all together.

    Returns the digests of the files by name.

    Raises:
        MachineError: the disk is full or refuses, or the processes do not share it.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    if rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
    dist.barrier()
    with while_writing(folder):
        try:
            save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(partial), save_distributed=True))
        except CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from error
    mine = {path.name: file_digest(path) for path in partial.glob(f"shard-{rank() + 1:05d}-*")}
    found: list[dict[str, str]] = [{}] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    digests = {name: digest for each in found for name, digest in each.items()}
    if rank() == 0:
        absent = sorted(name for name in digests if not (partial / name).is_file())
        if absent:
            raise MachineError(
                f"{folder}: {absent[0]}, which another node has written, is not there; checkpoints of a model in shards need a"
                " disk that all nodes share: put the project on one, or set runtime.strategy: ddp"
            )
        with while_writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
            _sync(folder.parent)
    dist.barrier()
    return digests


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def kinds_of(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Returns the whole size and the type of each tensor."""
    found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: (each.size, each.properties.dtype) for name, each in found.items()}  # type: ignore[union-attr]


def read_shards(into: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Fills tensors, sharded over any number of processes; to be called by all together."""
    load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)))


def read_whole(folder: Path) -> dict[str, torch.Tensor]:
    """Returns all tensors whole, on the CPU, in this process alone."""
    tensors = {name: torch.empty(size, dtype=dtype) for name, (size, dtype) in kinds_of(folder).items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.distributed is disabled.*")  # as it may be
        load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return tensors


def taken_apart(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, DTensor]]:
    """Returns a checkpoint of Lightning's without what is sharded in it, and the shards by name."""
    shards = {f"model/{name}": tensor for name, tensor in checkpoint["state_dict"].items() if isinstance(tensor, DTensor)}
    plain = {**checkpoint, "state_dict": _without_shards(checkpoint["state_dict"]), "sharded": True}
    states = []
    for number, optimizer in enumerate(checkpoint.get("optimizer_states", [])):
        for key, values in optimizer["state"].items():
            shards |= {f"optimizer/{number}/{key}/{name}": v for name, v in values.items() if isinstance(v, DTensor)}
        states.append({**optimizer, "state": {key: _without_shards(each) for key, each in optimizer["state"].items()}})
    return plain | ({"optimizer_states": states} if states else {}), shards


def put_back(checkpoint: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Puts tensors where `taken_apart` has taken them from."""
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "model":
            checkpoint["state_dict"][rest] = tensor
        elif "optimizer_states" in checkpoint:
            number, key, slot = rest.split("/")
            checkpoint["optimizer_states"][int(number)]["state"][int(key)][slot] = tensor


def _without_shards(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, DTensor)}
