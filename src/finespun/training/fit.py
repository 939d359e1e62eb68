"""Putting a fine-tuning run together and choosing how it is computed: solved, a head's bare loop, or Lightning's.

Lightning is imported only where its loop is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.func import functional_call

from finespun.config.sections import RunConfig
from finespun.data.loader import BatchLoader
from finespun.data.prepared import PreparedData
from finespun.errors import ConfigError
from finespun.models.cpu.attention import SHORT, eager_attention
from finespun.models.cpu.kernels import cpu_kernels
from finespun.strategies.base import Tuning
from finespun.tasks.base import Batch, Encoder, Task
from finespun.training.checkpoints import Store
from finespun.training.data_loaders import EVALUATION_ROWS, make_loader
from finespun.training.frozen.classical_heads import solve
from finespun.training.frozen.head_inputs import few_rows, find_head, inputs_of_head
from finespun.training.frozen.head_loop import HeadLoop
from finespun.training.frozen.replay import replayed
from finespun.training.history import History, Recorder, Sink
from finespun.training.job import Job
from finespun.training.lightning.devices import Hardware, keep_freed_memory, passes_of_step
from finespun.training.lightning.launching import rank, world_size
from finespun.training.lightning.rehearsal import rehearse
from finespun.training.lightning.sharding import Shards, require_steps
from finespun.training.optimization import Plan, batches_of_epoch, make_optimizer, make_scheduler
from finespun.training.phases import begin_epoch, describe, freeze_all_but


@dataclass(frozen=True)
class Fitted:
    """The best weights, in the model of `tuning`, which parameters trained when (`phases`), and how the weights came about."""

    tuning: Tuning
    phases: list[str]
    best_epoch: int
    best_score: float
    steps: int
    beside: Callable[[Path], None] | None = None  # writes what else belongs into the model's folder


def fit(
    *,
    config: RunConfig,
    tuning: Tuning,
    task: Task,
    prepared: PreparedData,
    encoder: Encoder,
    hardware: Hardware,
    store: Store,
    sink: Sink,
    features: Path | None = None,
) -> Fitted:
    """Trains to the best epoch, taking up the newest whole checkpoint of `store` where there is one.

    With shards, the others get the model of `tuning` without numbers, and rank zero alone is given the whole one back.
    `features` is a folder, named by data and weights, for the activations of what stays frozen; None computes them anew.

    Raises:
        ConfigError: an option makes no sense with this model or strategy.
        DivergedError: the loss is no longer a number.
        InterruptError: a signal came; a checkpoint is saved.
        MachineError: memory or disk ran out.
        ModelError: the model cannot compute the longest batch.
    """
    freeze_all_but(tuning.model, tuning.groups)
    tuning, shards = _placed(tuning, hardware)
    model, runtime = tuning.model, config.runtime
    phases = describe(model, tuning.groups, config.trainer.max_epochs)
    if rank() == 0:
        print("\n".join(phases), flush=True)  # noqa: T201
    if rank() == 0 and not task.deterministic and not all(p.requires_grad for p in model.parameters()):
        print("frozen part: computed anew each epoch, for task.augmentation changes what it is given", flush=True)  # noqa: T201
    if runtime.gradient_checkpointing:
        _checkpoint_activations(model)
    passes = passes_of_step(config.trainer.batch_size, world_size(), runtime.device_batch_size)
    if task.whole_steps:
        task, passes = task.in_passes(passes), 1
    task = task.with_miner(prepared.open("train"), encoder)
    common: dict[str, Any] = {"task": task, "encoder": encoder, "runtime": runtime}
    train = make_loader(
        prepared, "train", step_rows=config.trainer.batch_size, seed=config.seed, passes=passes,
        imbalance=config.trainer.imbalance, **common,
    )  # fmt: skip
    val = make_loader(prepared, "val", step_rows=EVALUATION_ROWS, **common)
    if hardware.accelerator == "cpu":
        keep_freed_memory()
    job = Job(
        config=config, tuning=tuning, task=task, encoder=encoder, labels=prepared.labels, hardware=hardware, store=store,
        recorder=Recorder(History(store.folder / "history.csv"), sink), passes=passes,
        plan=_plan(config, tuning, task, steps_an_epoch=-(-batches_of_epoch(len(train), config.trainer.lightning) // passes)),
        features=features if runtime.feature_cache_gb and task.deterministic and world_size() == 1 else None,
    )  # fmt: skip
    if shards:
        require_steps(job.plan.optimizer, config.optimizer.target, hardware)
    with cpu_kernels(model, on=_kernels_on(config)):
        return _fitted(job, phases, shards, train, val)


def _kernels_on(config: RunConfig) -> bool:
    return config.runtime.cpu_kernels and not config.trainer.compile


def _short_in_bf16(job: Job, train: BatchLoader) -> bool:
    kind = job.hardware.accelerator, job.hardware.precision
    return (
        kind == ("cpu", "bf16-mixed") and _kernels_on(job.config) and not job.task.from_logits
        and int(train.batches.lengths.max()) <= SHORT
    )  # fmt: skip


def _fitted(job: Job, phases: list[str], shards: Shards | None, train: BatchLoader, val: BatchLoader) -> Fitted:
    tuning = job.tuning
    if tuning.solution:
        if not job.task.from_logits:
            raise ConfigError(
                ["strategy: features fits a head to targets, and this task's loss is its model's own; take lora or full"]
            )
        model, best_score = solve(job, tuning.solution, train, val)
        return Fitted(replace(tuning, model=model), phases, best_epoch=0, best_score=best_score, steps=1)
    found = _trained(job, train, val)
    return Fitted(shards.whole() if shards else tuning, phases, *found)


def _placed(tuning: Tuning, hardware: Hardware) -> tuple[Tuning, Shards | None]:
    """Returns the model on its device, or in shards on all of them."""
    if not hardware.sharded:
        tuning.model.to(hardware.device)
        if hardware.channels_last:
            tuning.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types it with a device alone
        return tuning, None
    if tuning.solution:
        raise ConfigError(["strategy: features are fitted in one process; set runtime.devices: 1"])
    shards = Shards(tuning, hardware, release=True)
    if rank() == 0:
        print(f"shards: {shards}", flush=True)  # noqa: T201
    return shards.tuning, shards


def _checkpoint_activations(model: Any) -> None:
    try:
        model.activation_checkpointing_enable()
    except (ValueError, AttributeError) as error:
        reason = f"{type(model).__name__} cannot compute its activations again"
        raise ConfigError([f"runtime.gradient_checkpointing: {reason}; set it to false"]) from error


def _trained(job: Job, train: BatchLoader, val: BatchLoader) -> tuple[int, float, int]:
    """Trains in steps, and computes once what is frozen where that can be; returns the best epoch, its score and the steps."""
    trainer, model = job.config.trainer, job.tuning.model
    tried = few_rows(train).to(job.hardware.device)
    by_lightning = trainer.ema_decay or trainer.r_drop or trainer.lightning or trainer.callbacks or job.config.runtime.lightning
    if job.features and job.task.from_logits and not by_lightning:
        found = _head_alone(job, train, val, tried)
        if found:
            return found
    if trainer.r_drop and not (job.task.from_logits and _drops(job.tuning, tried)):
        reason = "what trains has no dropout, so two passes of a row give the same"
        if not job.task.from_logits:
            reason = "this task's loss is its model's own, and two outputs of a row have no distance"
        raise ConfigError([f"trainer.r_drop: {reason}; set it to null (it is {trainer.r_drop})"])
    from finespun.training.lightning.trainer import train_by_lightning  # noqa: PLC0415  (5 CPU seconds that a head need not pay)

    with (
        cpu_kernels(model, tried.inputs, on=_kernels_on(job.config) and job.task.from_logits and not job.hardware.sharded),
        eager_attention(model, on=_short_in_bf16(job, train)),
        replayed(job, (train, val), tried) as loaders,
    ):
        rehearse(job, *loaders)
        return train_by_lightning(job, *loaders)


def _head_alone(job: Job, train: BatchLoader, val: BatchLoader, tried: Batch) -> tuple[int, float, int] | None:
    model = job.tuning.model
    head = find_head(model, job.tuning.groups, tried)
    if head is None:
        return None
    size = head.width * (len(train.batches.lengths) + len(val.batches.lengths)) * 4 / 1e9
    if size > job.config.runtime.feature_cache_gb:
        return None
    kept = f"{size:.3f} GB in {job.features}"
    print(f"frozen part: computed once; {head.name} trains on its inputs ({kept})", flush=True)  # noqa: T201
    seen, unseen = (inputs_of_head(job, head, loader, split) for split, loader in (("train", train), ("val", val)))
    loop = HeadLoop(job, head)
    found = loop.run(seen, unseen, train.batches, train.rows.row_weights)
    return found.best_epoch, loop.sign * found.best_score, found.step


def _drops(tuning: Tuning, tried: Batch) -> bool:
    begin_epoch(tuning.model, tuning.groups, 0)
    buffers = {name: buffer.clone() for name, buffer in tuning.model.named_buffers()}  # moving statistics stay as they are
    with torch.no_grad():  # what shards are first gathered into in inference mode could not be trained on
        one, other = (functional_call(tuning.model, buffers, kwargs=tried.inputs).logits for _ in range(2))
    return not torch.equal(one, other)


def _plan(config: RunConfig, tuning: Tuning, task: Task, *, steps_an_epoch: int) -> Plan:
    also = config.runtime.allow_targets
    return Plan(
        groups=tuning.groups,
        optimizer=partial(make_optimizer, config.optimizer, also=also),
        scheduler=partial(make_scheduler, config.scheduler, task.monitor_mode, also=also),
        total_steps=_total_steps(config, steps_an_epoch),
        seed=config.seed,
        r_drop=config.trainer.r_drop,
    )


def _total_steps(config: RunConfig, steps_an_epoch: int) -> int:
    whole = steps_an_epoch * config.trainer.max_epochs
    limit = config.trainer.lightning.get("max_steps", -1)
    return whole if limit < 0 else min(whole, limit)
