"""Training by Lightning's Trainer: what finespun gives it and what it switches off in it."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, EarlyStopping, WeightAveraging
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from finespun.config import targets
from finespun.config.sections import RunConfig, Target
from finespun.data.loader import BatchLoader
from finespun.errors import ConfigError, InterruptError, MachineError
from finespun.masking import one_line
from finespun.training.job import Job
from finespun.training.lightning.callbacks import Alive, Mining, Saver, StepLog, StoreIO, in_terminal, progress
from finespun.training.lightning.data_module import FineTuningData
from finespun.training.lightning.devices import Hardware
from finespun.training.lightning.fine_tuner import FineTuner
from finespun.training.lightning.launching import is_worker, node_count, rank, world_size
from finespun.training.lightning.sharding import from_rank_zero


def make_trainer(hardware: Hardware, *, progress_bar: bool, find_unused_parameters: bool = False, **options: Any) -> pl.Trainer:
    """Returns Lightning's Trainer on the chosen devices; what finespun does itself is switched off in it."""
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning's own call of a torch function that will change
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # measured: batches are made in microseconds
    warnings.filterwarnings("ignore", ".*Trying to infer the `batch_size`.*")  # metric objects count their rows themselves
    warnings.filterwarnings("ignore", ".*eval mode at the start of training.*")
    warnings.filterwarnings("ignore", ".*overrides the configure_model.*")  # averages of models in shards are refused
    for greeter in ("pytorch_lightning", "lightning_fabric"):  # the stage has said what matters
        logging.getLogger(greeter).setLevel(logging.WARNING)
    if hardware.accelerator == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 where a GPU has it
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # writes NaN into all new tensors
    backend = "nccl" if hardware.accelerator == "cuda" else "gloo"
    strategy = _strategy(hardware, backend, find_unused_parameters=find_unused_parameters)
    logging.getLogger("pytorch_lightning.profilers.profiler").setLevel(logging.INFO)  # what was asked for is shown
    logging.getLogger("pytorch_lightning.callbacks.model_summary").setLevel(logging.INFO)
    settings: dict[str, Any] = {"enable_model_summary": False, **options}
    if not is_worker():  # Lightning would take a SLURM job that this process is in for its own, and requeue it
        settings["plugins"] = [*settings.get("plugins", []), LightningEnvironment()]
    if world_size() > 1:
        settings["callbacks"] = [*settings.get("callbacks", []), Alive()]
    try:
        return _trainer(hardware, strategy, progress_bar=progress_bar, **settings)
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError([f"runtime.lightning or trainer.lightning: {one_line(error, None)}"]) from error


def _strategy(hardware: Hardware, backend: str, *, find_unused_parameters: bool) -> Strategy | str:
    if world_size() == 1:
        return "auto"
    if not hardware.sharded and hardware.nodes == 1:
        return DDPStrategy(process_group_backend=backend, find_unused_parameters=find_unused_parameters)
    from finespun.training.lightning.strategies import FarCopies, Sharded  # noqa: PLC0415  (0.3 s that others need not pay)

    if not hardware.sharded:
        return FarCopies(process_group_backend=backend, find_unused_parameters=find_unused_parameters)
    return Sharded(data_parallel_size=world_size(), tensor_parallel_size=1, process_group_backend=backend)


def _trainer(hardware: Hardware, strategy: Strategy | str, *, progress_bar: bool, **settings: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="gpu" if hardware.accelerator in {"cuda", "mps"} else "cpu",
        devices=world_size() // node_count(),
        num_nodes=node_count(),
        strategy=strategy,
        precision=hardware.precision,  # type: ignore[arg-type]  # a Literal of Lightning's; our section checks it
        logger=False,
        deterministic=True,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_progress_bar=progress_bar,
        **settings,
    )


def train_by_lightning(job: Job, train: BatchLoader, val: BatchLoader) -> tuple[int, float, int]:
    """Leaves the best weights in the model; returns the best epoch, its score and the number of steps."""
    config, task, store = job.config, job.task, job.store
    if config.trainer.compile:
        _compile(job.tuning.model, job.hardware)
    module = FineTuner(model=job.tuning.model, task=task, encoder=job.encoder, labels=job.labels, plan=job.plan)
    saver = Saver(
        store, train, monitor=task.monitor, mode=task.monitor_mode, seconds=config.runtime.checkpoint_seconds,
        flush=job.recorder.flush,
    )  # fmt: skip
    trainer = make_trainer(
        job.hardware,
        progress_bar=config.runtime.progress_bar and in_terminal(),
        max_epochs=config.trainer.max_epochs,
        accumulate_grad_batches=job.passes,
        gradient_clip_val=config.trainer.gradient_clip_norm,
        # Detectors that train with noise have an embedding that a rank without boxes does not use.
        find_unused_parameters=any(group.from_epoch for group in job.tuning.groups) or "boxes" in job.task.answer_roles,
        callbacks=_callbacks(StepLog(job.recorder, padding_share=train.batches.padding_share), saver, job),
        plugins=[StoreIO(store)],
        default_root_dir=store.folder,
        **config.runtime.lightning,
        **config.trainer.lightning,
    )
    checkpoint = from_rank_zero(store.newest, job.hardware)
    if rank() == 0:
        job.recorder.history.cut_back(int(checkpoint.stem.removeprefix("state-")) if checkpoint else -1)
    if checkpoint:
        print(f"taking up {checkpoint.name} ({store.folder})")  # noqa: T201
    with saver.signals.listening():
        trainer.fit(module, datamodule=FineTuningData({"train": train, "val": val}), ckpt_path=checkpoint)
    if saver.signals.heard:
        newest = store.newest()
        place = f"from {newest.name}" if newest else "from the beginning: it was shorter than runtime.checkpoint_seconds"
        raise InterruptError(saver.signals.heard, f"interrupted after the last step; start again to go on {place}")
    saver.load_best(trainer, module)
    return saver.best_epoch, saver.sign * saver.best_score, trainer.global_step


def _compile(model: nn.Module, hardware: Hardware) -> None:
    compiler = os.environ.get("CXX", "g++")
    if hardware.accelerator == "cpu" and not shutil.which(compiler):
        raise MachineError(f"trainer.compile: {compiler} is not there, and torch.compile needs it; install it or set false")
    model.compile(dynamic=True)  # in place: names of weights stay; lengths differ from batch to batch


def _callbacks(log: StepLog, saver: Saver, job: Job) -> list[Callback]:
    task, config = job.task, job.config
    callbacks: list[Callback] = [log, saver]
    if task.miner is not None:
        callbacks.append(Mining(task.miner, job.hardware.precision))
    if config.trainer.ema_decay:
        all_at_once = get_ema_multi_avg_fn(config.trainer.ema_decay)  # type: ignore[no-untyped-call]
        saver.average = WeightAveraging(
            use_buffers=False, multi_avg_fn=all_at_once
        )  # EMAWeightAveraging takes 10 times as long
        callbacks.append(saver.average)
    patience = config.trainer.early_stopping_patience
    if patience is not None:
        callbacks.append(EarlyStopping(task.monitor, patience=patience, mode=task.monitor_mode))
    if config.runtime.progress_bar:
        callbacks.append(progress(log.recorder, task.monitor))
    return [*callbacks, *(_build(callback, config) for callback in config.trainer.callbacks)]


def _build(target: Target, config: RunConfig) -> Callback:
    """Builds a callback of Lightning's or of the user's.

    Raises:
        ConfigError: it is no callback, or refuses its options.
    """
    kind = targets.load("callbacks", target.target, also=config.runtime.allow_targets)
    try:
        callback = kind(**target.options)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise ConfigError([f"trainer.callbacks: {target.target}: {error}"]) from error
    if not isinstance(callback, Callback):
        raise ConfigError([f"trainer.callbacks: {target.target} is no callback; derive it from pytorch_lightning.Callback"])
    return callback
