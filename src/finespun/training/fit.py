"""Putting a fine-tuning run together: loaders, module, callbacks, Lightning's Trainer."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, EMAWeightAveraging
from pytorch_lightning.strategies import DDPStrategy

from finespun.config.sections import RunConfig
from finespun.data.loader import BatchLoader
from finespun.data.prepared import PreparedData
from finespun.errors import InterruptError, MachineError
from finespun.strategies.base import Tuning
from finespun.tasks.base import Encoder, Task
from finespun.training.callbacks import Progress, Sink, StepLog
from finespun.training.checkpoints import Saver, Store, StoreIO
from finespun.training.fine_tuner import FineTuner, Plan
from finespun.training.frozen import replayed
from finespun.training.hardware import Hardware, passes_of_step
from finespun.training.history import History
from finespun.training.launch import rank, world_size
from finespun.training.loading import EVALUATION_ROWS, make_loader
from finespun.training.optimization import optimizer_factory, scheduler_factory
from finespun.training.phases import Phases, describe, freeze_all_but
from finespun.training.solving import solve


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The best weights, in the model of `tuning`, how they came about, and which parameters trained when."""

    tuning: Tuning
    phases: list[str]
    best_epoch: int
    best_score: float
    steps: int


def make_trainer(hardware: Hardware, *, progress_bar: bool, find_unused_parameters: bool = False, **options: Any) -> pl.Trainer:
    """Returns Lightning's Trainer on the chosen devices; what finespun does itself is switched off in it."""
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning's own call of a torch function that will change
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # measured: batches are made in microseconds
    warnings.filterwarnings("ignore", ".*Trying to infer the `batch_size`.*")  # metric objects count their rows themselves
    warnings.filterwarnings("ignore", ".*eval mode at the start of training.*")
    for greeter in ("pytorch_lightning", "lightning_fabric"):  # the stage has said what matters
        logging.getLogger(greeter).setLevel(logging.WARNING)
    if hardware.accelerator == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 where a GPU has it
    backend = "nccl" if hardware.accelerator == "cuda" else "gloo"
    ddp = DDPStrategy(process_group_backend=backend, find_unused_parameters=find_unused_parameters)
    return pl.Trainer(
        accelerator="gpu" if hardware.accelerator in {"cuda", "mps"} else "cpu",
        devices=world_size(),
        strategy=ddp if world_size() > 1 else "auto",
        precision=hardware.precision,  # type: ignore[arg-type]  # a Literal of Lightning's; our section checks it
        logger=False,
        deterministic=True,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=progress_bar,
        **options,
    )


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
        DivergedError: the loss is no longer a number.
        InterruptError: a signal came; a checkpoint is saved.
        MachineError: memory or disk ran out.
    """
    model, runtime = tuning.model, config.runtime
    freeze_all_but(model, tuning.groups)
    phases = describe(model, tuning.groups, config.trainer.max_epochs)
    if rank() == 0:
        print("\n".join(phases), flush=True)  # noqa: T201
    if runtime.gradient_checkpointing:
        model.activation_checkpointing_enable()  # type: ignore[operator]  # every transformers model has it
    passes = passes_of_step(config.trainer.batch_size, world_size(), runtime.device_batch_size)
    common: dict[str, Any] = {"task": task, "encoder": encoder, "runtime": runtime}
    train = make_loader(
        prepared, "train", step_rows=config.trainer.batch_size, seed=config.seed, passes=passes,
        imbalance=config.trainer.imbalance, **common,
    )  # fmt: skip
    val = make_loader(prepared, "val", step_rows=EVALUATION_ROWS, **common)
    if tuning.solution:
        if hardware.accelerator != "cpu":
            model.to(hardware.accelerator)
        best = solve(
            model, tuning.solution, task, train, val, config=config, labels=prepared.labels,
            folder=features if runtime.feature_cache_gb else None, history=History(store.folder / "history.csv"), sink=sink,
        )  # fmt: skip
        return Fitted(tuning=tuning, phases=phases, best_epoch=0, best_score=best, steps=1)
    gigabytes = runtime.feature_cache_gb if features and world_size() == 1 else 0.0
    if gigabytes:
        model.to(hardware.accelerator)
    plan = _plan(config, tuning, task, steps_an_epoch=len(train) // passes)
    cache: dict[str, Any] = {"folder": features or Path(), "gigabytes": gigabytes, "precision": hardware.precision}
    with replayed(model, tuning.groups, (train, val), **cache) as loaders:
        job = _Job(
            config=config, tuning=tuning, plan=plan, task=task, labels=prepared.labels, passes=passes, store=store,
            sink=sink,
        )  # fmt: skip
        saver, steps = job.run(hardware, *loaders, find_unused_parameters=len(phases) > 1)
    score = saver.sign * saver.best_score
    return Fitted(tuning=tuning, phases=phases, best_epoch=saver.best_epoch, best_score=score, steps=steps)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is trained with what; `run` trains it."""

    config: RunConfig
    tuning: Tuning
    plan: Plan
    task: Task
    labels: list[str]
    passes: int
    store: Store
    sink: Sink

    def run(
        self, hardware: Hardware, train: BatchLoader, val: BatchLoader, *, find_unused_parameters: bool
    ) -> tuple[Saver, int]:
        """Leaves the best weights in the model; returns who knows which those are, and the number of steps."""
        task, store = self.task, self.store
        module = FineTuner(model=self.tuning.model, task=task, labels=self.labels, plan=self.plan)
        history, padding = History(store.folder / "history.csv"), train.batches.padding_share
        log = StepLog(history, self.sink, monitor=task.monitor, padding_share=padding)
        seconds = self.config.runtime.checkpoint_seconds
        saver = Saver(store, train, monitor=task.monitor, mode=task.monitor_mode, seconds=seconds, flush=log.flush)
        trainer = make_trainer(
            hardware,
            progress_bar=self.config.runtime.progress_bar,
            max_epochs=self.config.trainer.max_epochs,
            accumulate_grad_batches=self.passes,
            gradient_clip_val=self.config.trainer.gradient_clip_norm,
            find_unused_parameters=find_unused_parameters,
            callbacks=[Phases(self.tuning.groups), *_callbacks(log, saver, task, self.config)],
            plugins=[StoreIO(store)],
            default_root_dir=store.folder,
        )
        checkpoint = store.newest()
        if rank() == 0:
            log.history.cut_back(int(checkpoint.stem.removeprefix("state-")) if checkpoint else -1)
        if checkpoint:
            print(f"taking up {checkpoint.name} ({store.folder})")  # noqa: T201
        with saver.listening():
            _run(trainer, module, train, val, checkpoint)
        if saver.signal:
            raise InterruptError(saver.signal, "interrupted after the last step; a checkpoint is saved: start again to finish")
        saver.load_best(module)
        return saver, trainer.global_step


def _plan(config: RunConfig, tuning: Tuning, task: Task, *, steps_an_epoch: int) -> Plan:
    return Plan(
        groups=tuning.groups,
        optimizer=optimizer_factory(config.optimizer),
        scheduler=scheduler_factory(config.scheduler, monitor_mode=task.monitor_mode),
        total_steps=steps_an_epoch * config.trainer.max_epochs,
        seed=config.seed,
    )


def _callbacks(log: StepLog, saver: Saver, task: Task, config: RunConfig) -> list[Callback]:
    callbacks: list[Callback] = [log, saver]
    if config.trainer.ema_decay:
        saver.average = EMAWeightAveraging(use_buffers=False, decay=config.trainer.ema_decay)
        callbacks.append(saver.average)
    patience = config.trainer.early_stopping_patience
    if patience is not None:
        callbacks.append(EarlyStopping(task.monitor, patience=patience, mode=task.monitor_mode))
    if config.runtime.progress_bar:
        callbacks.append(Progress(log))
    return callbacks


def _run(trainer: pl.Trainer, module: FineTuner, train: BatchLoader, val: BatchLoader, checkpoint: Path | None) -> None:
    try:
        trainer.fit(module, train, val, ckpt_path=checkpoint)
    except torch.OutOfMemoryError as error:
        raise MachineError(
            "the device's memory does not hold one forward pass; set runtime.device_batch_size to fewer rows"
            " (the effective batch stays as it is)"
        ) from error
