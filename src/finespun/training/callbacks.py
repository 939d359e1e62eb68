"""What is recorded and shown while a model trains, without waiting for the device at each step."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from finespun.errors import DivergedError
from finespun.tasks.base import Batch
from finespun.training.fine_tuner import FineTuner
from finespun.training.history import History
from finespun.training.launch import rank

FLUSH_STEPS = 25
Sink = Callable[[Mapping[str, float], int], None]  # metrics, step


class StepLog(Callback):
    """Keeps each step's loss and gradient norm on the device and hands them on every `FLUSH_STEPS` steps.

    Rank zero records; the loss is its share's estimate where several processes train.
    """

    def __init__(self, history: History, sink: Sink, *, monitor: str, padding_share: Callable[[], float]) -> None:
        self.history, self.sink, self.monitor, self.padding_share = history, sink, monitor, padding_share
        self.pending: list[tuple[int, float, torch.Tensor]] = []
        self.loss: torch.Tensor | None = None
        self.recent_loss = float("nan")
        self.rows = 0
        self.rate = 0.0
        self.epoch = 0
        self.since = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.since = time.perf_counter()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int) -> None:
        self.rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)  # before the schedule moves it on

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, FineTuner)
        self.epoch = trainer.current_epoch
        # Lightning has divided the loss by the passes of a step; their sum is this rank's estimate of the step's mean.
        share = outputs["loss"].detach()
        self.loss = share if self.loss is None else self.loss + share
        self.rows += batch.counted * trainer.world_size
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        assert pl_module.gradient_norm is not None
        self.pending.append(
            (trainer.global_step, self.rate, torch.stack([self.loss, pl_module.gradient_norm.to(self.loss.device)]))
        )
        self.loss = None
        if len(self.pending) >= FLUSH_STEPS:
            self.flush()

    def flush(self) -> None:
        """Hands on what is pending: the only place that waits for the device.

        Raises:
            DivergedError: a loss is not a number.
        """
        if not self.pending:
            return
        values = torch.stack([pair for _, _, pair in self.pending]).tolist()
        speed = self.rows / (time.perf_counter() - self.since)
        for (step, rate, _), (loss, norm) in zip(self.pending, values, strict=True):
            metrics = {"train/loss": loss, "train/learning_rate": rate, "train/gradient_norm": norm}
            if step == self.pending[-1][0]:
                metrics["train/samples_per_second"] = speed
            self._record(metrics, step)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"step {step}: train/loss is {loss} (gradient norm {norm}); lower optimizer.lr, lengthen the warm-up or set"
                    " trainer.gradient_clip_norm"
                )
        self.recent_loss = sum(loss for loss, _ in values) / len(values)
        self.pending, self.rows, self.since = [], 0, time.perf_counter()

    def _record(self, metrics: Mapping[str, float], step: int) -> None:
        if rank():
            return
        self.history.add(metrics, step=step, epoch=self.epoch)
        self.sink(metrics, step)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.flush()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        metrics |= {"epoch": float(trainer.current_epoch), "train/padding_share": self.padding_share()}
        self._record(metrics, trainer.global_step)
        self.since = time.perf_counter()


class Progress(TQDMProgressBar):
    """One line: epoch, batches, rate, time left, the recent training loss and the last validation metrics."""

    def __init__(self, step_log: StepLog) -> None:
        super().__init__(refresh_rate=10 if sys.stderr.isatty() else 100)
        self.step_log = step_log

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        shown: dict[str, int | str | float | dict[str, float]] = {"loss": f"{self.step_log.recent_loss:.3f}"}
        watched = {name: trainer.callback_metrics.get(name) for name in ("val/loss", self.step_log.monitor)}
        return shown | {name: f"{float(value):.3f}" for name, value in watched.items() if value is not None}

    def init_validation_tqdm(self) -> Tqdm:
        """Shows no second bar: validation is short, and its result appears on the first."""
        return Tqdm(disable=True)
