"""How far training is, for who watches it: a bar in a terminal, a line a validation in a log."""

from __future__ import annotations

import sys
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from finespun.training.history import Recorder


def in_terminal() -> bool:
    """Whether what is written on standard error may be drawn over."""
    return sys.stderr.isatty()


def progress(recorder: Recorder, monitor: str) -> Callback:
    """Returns what shows progress here."""
    return Progress(recorder, monitor) if in_terminal() else Lines(recorder, monitor)


def shown(recorder: Recorder, monitor: str, trainer: pl.Trainer) -> dict[str, str]:
    """Returns the recent training loss and the last validation metrics, where there are such."""
    watched = {name: trainer.callback_metrics.get(name) for name in ("val/loss", monitor)}
    found = {"loss": recorder.recent_loss, **watched}
    return {name: f"{float(value):.3f}" for name, value in found.items() if value is not None}


class Progress(TQDMProgressBar):
    """One line: epoch, batches, rate, time left, the recent training loss and the last validation metrics."""

    def __init__(self, recorder: Recorder, monitor: str) -> None:
        super().__init__(refresh_rate=10)
        self.recorder, self.monitor = recorder, monitor

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        return {**shown(self.recorder, self.monitor, trainer)}

    def init_validation_tqdm(self) -> Tqdm:
        """Shows no second bar: validation is short, and its result appears on the first."""
        return Tqdm(disable=True)


class Lines(Callback):
    """A line after each validation: epoch, step, metrics and the seconds since training began."""

    def __init__(self, recorder: Recorder, monitor: str) -> None:
        self.recorder, self.monitor, self.began = recorder, monitor, time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        metrics = ", ".join(f"{name} {value}" for name, value in shown(self.recorder, self.monitor, trainer).items())
        place = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, step {trainer.global_step}"
        print(f"{place}: {metrics} ({time.monotonic() - self.began:.0f} s)", flush=True)  # noqa: T201
