"""What the machine has and what is made of it: devices, precision, passes a step."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from finespun.config.sections import RuntimeConfig
from finespun.cores import cores
from finespun.errors import ConfigError, MachineError
from finespun.training.lightning.launching import is_worker, node_count
from finespun.training.lightning.nodes import Nodes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's names, malloc.h
PROCESSES = 8  # of a CPU, at most, where it has fewer cores: enough to try out what several do
KEPT_BYTES = 2**30
NATIVE_BF16 = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public question for it yet


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The devices of a run and the arithmetic that suits them."""

    accelerator: str  # cpu, cuda, mps
    devices: int  # of each node
    precision: str
    why: str  # this precision
    channels_last: bool = False
    strategy: str = "ddp"  # of several devices: ddp, fsdp
    nodes: int = 1

    @property
    def device(self) -> torch.device:
        """This process's own."""
        return device_of(self.accelerator)

    @property
    def arithmetic(self) -> dict[str, str]:
        """What changes the last bits of a result beside the configuration: a run is only resumed where it is the same."""
        threads = {"threads": str(torch.get_num_threads())} if self.accelerator == "cpu" else {}
        return {"on": self.precision, **threads}

    @property
    def sharded(self) -> bool:
        """Whether each device holds a shard of the model, and not a copy."""
        return self.strategy == "fsdp" and self.devices * self.nodes > 1

    def __str__(self) -> str:
        name = platform.processor() or platform.machine()
        if self.accelerator == "cuda":
            name = torch.cuda.get_device_name()
        processes = self.devices * self.nodes
        launch = "one process" if processes == 1 else f"{'FSDP2' if self.sharded else 'DDP'}, {processes} processes"
        launch += f" on {self.nodes} nodes" if self.nodes > 1 else ""
        threads = f", {torch.get_num_threads()} threads" if self.accelerator == "cpu" else ""
        layout = ", convolutions channels_last" if self.channels_last else ""
        precision = f"precision {self.precision} ({self.why})"
        return f"{self.devices} x {self.accelerator} ({name}{threads}), {launch}, {precision}{layout}"


def choose(runtime: RuntimeConfig, precision: str = "auto", *, why: str = "as set", images: bool = False) -> Hardware:
    """Resolves every `auto`.

    Args:
        runtime: the user's wishes.
        precision: `auto`, or what it must be.
        why: it must be so.
        images: the model reads images, so its convolutions have the channels last in memory.

    Raises:
        ConfigError: the precision is not one of models in shards.
        MachineError: a device is asked for that is not there.
    """
    accelerator = choose_accelerator(runtime.accelerator)
    there = torch.cuda.device_count() if accelerator == "cuda" else 1
    devices = there if runtime.devices == "auto" else runtime.devices
    most = max(cores(), PROCESSES) if accelerator == "cpu" else there
    if devices > most:
        have = f"{most} processes are the most on {cores()} cores" if accelerator == "cpu" else f"{there} {accelerator} there"
        raise MachineError(f"runtime.devices: {devices} asked for, {have}; lower it in conf/runtime/")
    chosen, why = _precision(accelerator) if precision == "auto" else (precision, why)
    found = Hardware(
        accelerator=accelerator, devices=devices, precision=chosen, why=why, channels_last=images, strategy=runtime.strategy,
        nodes=node_count() if is_worker() else Nodes.of(runtime).most,
    )  # fmt: skip
    if not found.sharded:
        return found
    if chosen == "16-mixed":
        reason = "gradients in shards are not scaled for half precision"
        raise ConfigError([f"runtime.strategy: fsdp: {reason} ({chosen}, {why}); set trainer.precision: 32-true or bf16-mixed"])
    return replace(found, channels_last=False)  # shards have no layout of their own


def choose_accelerator(asked: str) -> str:
    """Returns cpu, cuda or mps.

    Raises:
        MachineError: a GPU is asked for and there is none.
    """
    gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    if asked == "gpu" and gpu is None:
        raise MachineError("runtime.accelerator: gpu asked for, none is there; set auto or cpu in conf/runtime/")
    return "cpu" if asked == "cpu" or gpu is None else gpu


def require_devices(processes: int) -> None:
    """Makes sure that each process of this machine has a device of its own.

    Raises:
        MachineError: there are more processes than GPUs.
    """
    accelerator = choose_accelerator("auto")
    there = torch.cuda.device_count() if accelerator == "cuda" else 1
    if processes > there and accelerator != "cpu":
        raise MachineError(f"--devices: {processes} asked for, {there} {accelerator} there; ask for at most {there}")


def device_of(accelerator: str) -> torch.device:
    """Returns this process's device: of several GPUs the one that torchrun has given it."""
    return (
        torch.device(accelerator, int(os.environ.get("LOCAL_RANK", "0")))
        if accelerator == "cuda"
        else torch.device(accelerator)
    )


def _precision(accelerator: str) -> tuple[str, str]:
    """bf16 where the hardware multiplies it natively; on other CPUs it is many times slower than float32."""
    if accelerator == "cuda":
        native = torch.cuda.get_device_capability() >= (8, 0)
        return ("bf16-mixed", "native on this GPU") if native else ("16-mixed", "this GPU has no native bf16")
    if accelerator == "cpu" and any(getattr(torch.cpu, name, bool)() for name in NATIVE_BF16):
        return "bf16-mixed", "native on this CPU"
    return "32-true", f"no native bf16 on this {accelerator}"


def passes_of_step(step_rows: int, devices: int, device_batch_size: int | None) -> int:
    """Returns how many forward passes of a device make up its share of a step."""
    share = -(-step_rows // devices)
    return 1 if device_batch_size is None else -(-share // device_batch_size)


def keep_freed_memory() -> None:
    """Lets glibc keep what tensors give back. It would return it, and each step fault the same pages in again: 4 % of a step.

    Other systems have no such settings; nothing happens there.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for setting, *values in ((M_MMAP_THRESHOLD, KEPT_BYTES, 2**25), (M_TRIM_THRESHOLD, KEPT_BYTES), (M_TOP_PAD, 2**26)):
            any(libc.mallopt(setting, value) for value in values)  # older ones refuse a threshold above 32 MiB
