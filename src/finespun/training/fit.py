"""Putting a fine-tuning run together and choosing how it is computed: solved, a head's bare loop, or Lightning's.

Lightning is imported only where its loop is taken.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.func import functional_call

from finespun.config.sections import RunConfig
from finespun.data.loader import BatchLoader
from finespun.data.prepared import PreparedData
from finespun.errors import ConfigError
from finespun.models.attention import quick_attention
from finespun.models.dropout import drop_quickly
from finespun.strategies.base import Tuning
from finespun.tasks.base import Batch, Encoder, Task
from finespun.training.checkpoints import Store
from finespun.training.entering import entering, few_rows, find_head
from finespun.training.frozen import replayed
from finespun.training.hardware import Hardware, keep_freed_memory, passes_of_step
from finespun.training.head_loop import HeadLoop
from finespun.training.history import History, Recorder, Sink
from finespun.training.launch import rank, world_size
from finespun.training.loading import EVALUATION_ROWS, make_loader
from finespun.training.optimization import Plan, optimizer_factory, scheduler_factory
from finespun.training.phases import begin_epoch, describe, freeze_all_but
from finespun.training.solving import solve


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The best weights, in the model of `tuning`, how they came about, and which parameters trained when."""

    tuning: Tuning
    phases: list[str]
    best_epoch: int
    best_score: float
    steps: int


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

    `features` is a folder, named by data and weights, for the activations of what stays frozen; None computes them anew.

    Raises:
        ConfigError: an option makes no sense with this model or strategy.
        DivergedError: the loss is no longer a number.
        InterruptError: a signal came; a checkpoint is saved.
        MachineError: memory or disk ran out.
    """
    model, runtime = tuning.model, config.runtime
    model.to(memory_format=hardware.memory_format)  # type: ignore[call-overload]  # torch types it with a device alone
    freeze_all_but(model, tuning.groups)
    phases = describe(model, tuning.groups, config.trainer.max_epochs)
    if rank() == 0:
        print("\n".join(phases), flush=True)  # noqa: T201
    if rank() == 0 and not task.deterministic and not all(p.requires_grad for p in model.parameters()):
        print("frozen part: computed anew each epoch, for task.augmentation changes what it is given", flush=True)  # noqa: T201
    if runtime.gradient_checkpointing:
        model.activation_checkpointing_enable()  # type: ignore[operator]  # every transformers model has it
    passes = passes_of_step(config.trainer.batch_size, world_size(), runtime.device_batch_size)
    common: dict[str, Any] = {"task": task, "encoder": encoder, "runtime": runtime}
    train = make_loader(
        prepared, "train", step_rows=config.trainer.batch_size, seed=config.seed, passes=passes,
        imbalance=config.trainer.imbalance, **common,
    )  # fmt: skip
    val = make_loader(prepared, "val", step_rows=EVALUATION_ROWS, **common)
    if hardware.accelerator == "cpu":
        keep_freed_memory()
        if not config.trainer.compile:
            drop_quickly(model)
    run = _Run(
        config=config, tuning=tuning, task=task, encoder=encoder, labels=prepared.labels, hardware=hardware, store=store,
        phases=phases,
        recorder=Recorder(History(store.folder / "history.csv"), sink), passes=passes,
        plan=_plan(config, tuning, task, steps_an_epoch=len(train) // passes),
        features=features if runtime.feature_cache_gb and task.deterministic and world_size() == 1 else None,
    )  # fmt: skip
    return run.solved(train, val) if tuning.solution else run.trained(train, val)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What is trained with what; `features` is None where no activations are kept."""

    config: RunConfig
    tuning: Tuning
    task: Task
    encoder: Encoder
    labels: list[str]
    hardware: Hardware
    store: Store
    recorder: Recorder
    passes: int
    features: Path | None
    phases: list[str]
    plan: Plan

    def solved(self, train: BatchLoader, val: BatchLoader) -> Fitted:
        """Finds the weights of the last layer at once."""
        assert self.tuning.solution is not None
        self.tuning.model.to(self.hardware.accelerator)
        model, best = solve(
            self.tuning.model, self.tuning.solution, self.task, train, val, config=self.config, labels=self.labels,
            folder=self.features, recorder=self.recorder, precision=self.hardware.precision,
        )  # fmt: skip
        return replace(self._fitted(epoch=0, score=best, steps=1), tuning=replace(self.tuning, model=model))

    def trained(self, train: BatchLoader, val: BatchLoader) -> Fitted:
        """Trains in steps; what is frozen is computed once where that can be."""
        trainer = self.config.trainer
        self.tuning.model.to(self.hardware.accelerator)
        tried = few_rows(train).to(torch.device(self.hardware.accelerator))
        alone = self.features and not (trainer.ema_decay or trainer.r_drop)
        fitted = self._head_alone(train, val, tried) if alone else None
        if fitted:
            return fitted
        if trainer.r_drop and not _drops(self.tuning, tried):
            reason = "what trains has no dropout, so two answers to a row are one"
            raise ConfigError([f"trainer.r_drop: {reason}; set it to null (it is {trainer.r_drop})"])
        from finespun.training.lightning_loop import LightningLoop  # noqa: PLC0415  (5 CPU seconds that a head need not pay)

        loop = LightningLoop(
            config=self.config, tuning=self.tuning, plan=self.plan, task=self.task, encoder=self.encoder,
            labels=self.labels, passes=self.passes, store=self.store, recorder=self.recorder,
        )  # fmt: skip
        gigabytes = self.config.runtime.feature_cache_gb if self.features else 0.0
        with (
            nullcontext() if trainer.compile else quick_attention(self.tuning.model, tried.inputs),
            replayed(
                self.tuning.model, self.tuning.groups, (train, val), example=tried if self.features else None,
                folder=self.features or Path(), gigabytes=gigabytes, precision=self.hardware.precision,
            ) as loaders,
        ):  # fmt: skip
            saver, steps = loop.run(self.hardware, *loaders, find_unused_parameters=len(self.phases) > 1)
        return self._fitted(epoch=saver.best_epoch, score=saver.sign * saver.best_score, steps=steps)

    def _head_alone(self, train: BatchLoader, val: BatchLoader, tried: Batch) -> Fitted | None:
        model, precision = self.tuning.model, self.hardware.precision
        head = find_head(model, self.tuning.groups, tried)
        if head is None:
            return None
        size = head.width * (len(train.batches.lengths) + len(val.batches.lengths)) * 4 / 1e9
        if size > self.config.runtime.feature_cache_gb:
            return None
        assert self.features is not None
        kept = f"{size:.3f} GB in {self.features}"
        print(f"frozen part: computed once; {head.name} trains on what enters it ({kept})", flush=True)  # noqa: T201
        seen, unseen = (
            entering(model, head, loader, self.features / split, precision)
            for split, loader in (("train", train), ("val", val))
        )
        loop = HeadLoop(
            head, plan=self.plan, task=self.task, labels=self.labels, config=self.config, store=self.store,
            recorder=self.recorder,
        )  # fmt: skip
        found = loop.run(seen, unseen, train.batches, train.rows.row_weights)
        return self._fitted(epoch=found.best_epoch, score=loop.sign * found.best_score, steps=found.step)

    def _fitted(self, *, epoch: int, score: float, steps: int) -> Fitted:
        return Fitted(tuning=self.tuning, phases=self.phases, best_epoch=epoch, best_score=score, steps=steps)


def _drops(tuning: Tuning, tried: Batch) -> bool:
    begin_epoch(tuning.model, tuning.groups, 0)
    buffers = {name: buffer.clone() for name, buffer in tuning.model.named_buffers()}  # moving statistics stay as they are
    with torch.inference_mode():
        one, other = (functional_call(tuning.model, buffers, kwargs=tried.inputs).logits for _ in range(2))
    return not torch.equal(one, other)


def _plan(config: RunConfig, tuning: Tuning, task: Task, *, steps_an_epoch: int) -> Plan:
    return Plan(
        groups=tuning.groups,
        optimizer=optimizer_factory(config.optimizer),
        scheduler=scheduler_factory(config.scheduler, monitor_mode=task.monitor_mode),
        total_steps=steps_an_epoch * config.trainer.max_epochs,
        seed=config.seed,
        r_drop=config.trainer.r_drop,
    )
