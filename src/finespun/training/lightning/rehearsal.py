"""A rehearsal of training: the longest batch forward and backward, the longest validation batch forward, before step one.

What does not fit into memory, or into the model, ends a run in its first seconds and not in its first night. Nothing of it
stays: no gradient, no moving statistics, no random number drawn, no mode of a module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from finespun.data.batches import Part
from finespun.errors import FinespunError, MachineError, ModelError
from finespun.failures import REFUSALS, explained
from finespun.masking import one_line
from finespun.training.frozen.head_inputs import arithmetic
from finespun.training.lightning.launching import world_size
from finespun.training.phases import begin_epoch

if TYPE_CHECKING:
    from finespun.data.loader import BatchLoader
    from finespun.tasks.base import Batch
    from finespun.training.job import Job


def rehearse(job: Job, train: BatchLoader, val: BatchLoader) -> None:
    """Tries the batches that ask most of memory; a run that is taken up has been through them.

    Args:
        job: its model where it will train, in any mode.
        train: what it will train on, tokens or replayed activations.
        val: the same of the validation split.

    Raises:
        MachineError: memory does not hold them.
        ModelError: the model cannot compute them.
    """
    if job.store.states():
        return
    model, device = job.tuning.model, job.hardware.device
    with _unchanged(model, device), arithmetic(model, job.hardware.precision):
        begin_epoch(model, job.tuning.groups, job.config.trainer.max_epochs - 1)  # when most of it trains
        batch = longest(train)
        with _telling(job, "training", batch):
            _step(job, batch.to(device))
        model.zero_grad(set_to_none=True)
        batch = longest(val)
        with _telling(job, "validation", batch), torch.inference_mode():
            moved = batch.to(device)
            job.task.losses(job.task.forward(model.eval(), moved), moved)


def longest(loader: BatchLoader) -> Batch:
    """Returns as many of the longest rows as this process is given at once."""
    batches = loader.batches
    count = -(-batches.step_rows // (batches.passes * batches.world_size))
    rows = np.argsort(-batches.lengths.astype(np.int64), kind="stable")[:count]
    found: Batch = loader.rows[Part(rows, 1 / len(rows), len(rows))]
    return found


def _step(job: Job, batch: Batch) -> None:
    batch = job.task.augment(batch, job.encoder, epoch=0, seed=job.config.seed)
    if job.config.trainer.r_drop is not None:
        inputs = {name: torch.cat([each, each]) for name, each in batch.inputs.items()}
        batch = batch._replace(inputs=inputs, targets=torch.cat([batch.targets, batch.targets]))
    losses = job.task.losses(job.task.forward(job.tuning.model, batch), batch, training=True)
    torch.autograd.backward(losses.mean())


@contextmanager
def _telling(job: Job, what: str, batch: Batch) -> Iterator[None]:
    """Says of a failure which batch it was."""
    sizes = ", ".join(f"{name} {' x '.join(map(str, each.shape))}" for name, each in batch.inputs.items())
    try:
        yield
    except FinespunError:
        raise
    except (*REFUSALS, MemoryError) as error:
        known = explained(error)
        if known is not None:
            raise MachineError(f"the longest batch of {what} ({sizes}; {world_size()} processes): {known}") from error
        reason = one_line(error)
        raise ModelError(
            f"{type(job.tuning.model).__name__} fails on the longest batch of {what} ({sizes}): {reason}; choose another model,"
            " task or strategy"
        ) from error


@contextmanager
def _unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Leaves weights' gradients, buffers, modes and the state of random numbers as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    trains = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        model.zero_grad(set_to_none=True)
        for parameter, train in trains:
            parameter.requires_grad_(train)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
