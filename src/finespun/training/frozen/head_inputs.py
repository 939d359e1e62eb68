"""The inputs of a head: which modules are above everything frozen, and their inputs, computed once and kept.

Where only a head trains, a row is one vector (or one token) for it: a whole split fits into memory, and no step has to run
the model. Whether the head alone says what the model says is tried before it is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from finespun.data.batches import Batches, Part
from finespun.data.loader import BatchLoader
from finespun.errors import ConfigError
from finespun.kept import in_one_move
from finespun.models.cpu.kernels import cpu_kernels
from finespun.strategies.anatomy import reads_first_token_alone
from finespun.tasks.base import Batch, Task
from finespun.training.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchmetrics import MetricCollection

    from finespun.strategies.base import Group

ROWS_AT_ONCE = 64
TRIED_ROWS = 4  # that show whether a part of the model, alone, says what the whole says
TOLERANCE = 1e-4  # of logits, between the whole model and the head alone


class _CapturedError(Exception):
    """Ends a forward pass where what was wanted is there."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The modules that turn the inputs of the first of them into logits. `first_token`: only that of each row matters."""

    name: str
    modules: nn.Sequential
    width: int
    first_token: bool = False


class HeadInputs(NamedTuple):
    """A split: features (rows, width) or (rows, 1, width) in its order, targets (rows, ...)."""

    features: torch.Tensor
    targets: torch.Tensor


class _Call(NamedTuple):
    name: str
    module: nn.Module
    given: torch.Tensor
    output: torch.Tensor


def find_head(model: nn.Module, groups: Sequence[Group], example: Batch) -> Head | None:
    """Returns the modules above everything frozen, or None where they are no chain that is given one vector a row.

    Args:
        model: the whole model, in any mode; it is left in eval mode.
        groups: all that will ever train.
        example: some rows to try it on.
    """
    missing = {id(parameter) for group in groups for parameter in group.parameters.values()}
    logits, calls = _calls(model.eval(), example)
    wanted = logits
    chain: list[_Call] = []
    for call in reversed(calls):  # a module ends after those inside it: the outermost is met first
        inside = any(call.name.startswith(f"{chosen.name}.") for chosen in chain)
        if call.output is not wanted or inside:
            continue
        if not missing and not isinstance(call.module, nn.Dropout):
            break
        chain.insert(0, call)
        missing -= {id(parameter) for parameter in call.module.parameters()}
        wanted = call.given
    wanted = as_vectors(wanted)
    if missing or not chain:
        return None
    modules = nn.Sequential(*(call.module for call in chain))
    given = wanted.clone().requires_grad_()  # not of inference mode
    found = modules(given)
    if found.shape != logits.shape or not torch.allclose(found, logits, atol=TOLERANCE):
        return None
    trained = [parameter for group in groups for parameter in group.parameters.values()]
    if any(each is None for each in torch.autograd.grad(found.sum(), trained, retain_graph=True, allow_unused=True)):
        return None  # what gets no gradient is left alone by an optimizer; HeadLoop would give it zeros
    first_token = given.ndim == 3
    if given.ndim not in {2, 3} or (first_token and not reads_first_token_alone(found, given)):
        return None
    return Head(name=chain[0].name, modules=modules, width=given.shape[-1], first_token=first_token)


def _calls(model: nn.Module, example: Batch) -> tuple[torch.Tensor, list[_Call]]:
    """Runs the model; returns its logits and the calls of modules that were given one tensor and returned one."""
    calls: list[_Call] = []

    def keep(name: str, module: nn.Module, given: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        if len(given) == 1 and not options and all(map(torch.is_tensor, (*given, output))):
            calls.append(_Call(name, module, given[0], output))

    handles = [
        module.register_forward_hook(lambda *call, name=name: keep(name, *call), with_kwargs=True)
        for name, module in model.named_modules()
        if name
    ]
    try:
        with torch.inference_mode():
            logits = model(**example.inputs).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits, calls


def inputs_of_head(job: Job, head: Head, loader: BatchLoader, split: str) -> HeadInputs:
    """Returns the head's inputs for a split, on the model's device; computed once where there is a folder to keep them in.

    Raises:
        ConfigError: the head is not given one vector a row.
    """
    device = next(job.tuning.model.parameters()).device
    if job.features is None:
        return HeadInputs(*(each.to(device) for each in _compute(job, head, loader)))

    def fill(partial: Path) -> None:
        for name, found in _compute(job, head, loader)._asdict().items():
            np.save(partial / f"{name}.npy", found.numpy())

    kept = in_one_move(job.features / split / f"into-{head.name}", fill, alone=True)
    return HeadInputs(*(torch.from_numpy(np.load(kept / f"{name}.npy")).to(device) for name in HeadInputs._fields))


def _compute(job: Job, head: Head, loader: BatchLoader) -> HeadInputs:
    model = job.tuning.model
    device = next(model.parameters()).device
    rows, features, targets = [], [], []
    tried = few_rows(loader).to(device).inputs
    quick, precise = cpu_kernels(model, tried, on=job.config.runtime.cpu_kernels), arithmetic(model, job.hardware.precision)
    with quick, torch.inference_mode(), precise:
        for batch in BatchLoader(loader.rows, Batches(loader.batches.lengths, step_rows=ROWS_AT_ONCE, seed=None)):
            given = as_vectors(stopped_at(model.eval(), head.modules[0], batch.to(device), given=True)).float().cpu()
            if given.ndim != 2 and not head.first_token:
                reason = f"features are one vector a row, {head.name} is given {tuple(given.shape)} (an answer for each token?)"
                raise ConfigError([f"strategy: {reason}; take strategy: head"])
            rows.append(batch.rows)
            features.append(given[:, :1] if head.first_token else given)
            targets.append(batch.targets)
    back = torch.argsort(torch.cat(rows))
    return HeadInputs(torch.cat(features)[back], torch.cat(targets)[back])


def scores_of(task: Task, metrics: MetricCollection, head: nn.Module, split: HeadInputs) -> dict[str, float]:
    """Returns what a head in eval mode scores on a split, and `val/loss`; the metrics are begun anew."""
    metrics.reset()
    with torch.inference_mode():
        logits = head(split.features)
        metrics.update(logits, split.targets)
        loss = task.loss(logits, split.targets).mean()
    return {name: float(value) for name, value in metrics.compute().items()} | {"val/loss": float(loss)}


def few_rows(loader: BatchLoader) -> Batch:
    """Returns a few rows to try a model on, from the shortest to the longest."""
    order = np.argsort(loader.batches.lengths, kind="stable")
    rows = order[np.linspace(0, len(order) - 1, min(TRIED_ROWS, len(order))).astype(np.int64)]
    found: Batch = loader.rows[Part(rows, 1 / len(rows), len(rows))]
    return found


def stopped_at(model: nn.Module, module: nn.Module, batch: Batch, *, given: bool) -> Any:
    """Returns what a module is `given` first, or else what it returns, computing nothing after that."""
    found: list[Any] = []

    def keep(_module: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> None:
        found.append(inputs[0] if given else output)
        raise _CapturedError

    handle = module.register_forward_pre_hook(keep) if given else module.register_forward_hook(keep)
    try:
        model(**batch.inputs)
    except _CapturedError:
        pass
    finally:
        handle.remove()
    return found[0]


def as_vectors(tensor: torch.Tensor) -> torch.Tensor:
    """Pooled maps, (rows, width, 1, 1), as (rows, width); what is pooled no further stays as it is."""
    return tensor.flatten(1) if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor


@contextmanager
def arithmetic(model: nn.Module, precision: str) -> Iterator[None]:
    """The arithmetic of training, so that what is kept is what would be computed."""
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    with torch.autocast(next(model.parameters()).device.type, dtype=dtype, enabled=precision.endswith("mixed")):
        yield
