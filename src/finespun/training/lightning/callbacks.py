"""What happens beside Lightning's loop: recording, showing, checkpoints and taking a run up from them."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import CheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint, TQDMProgressBar, WeightAveraging
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm

from finespun.data.loader import BatchLoader
from finespun.errors import DivergedError, InterruptError
from finespun.tasks.base import Batch, Miner
from finespun.training.checkpoints import Signals, Store
from finespun.training.frozen.head_inputs import arithmetic
from finespun.training.history import Recorder
from finespun.training.lightning.fine_tuner import FineTuner
from finespun.training.lightning.heartbeat import at_rest, progressed
from finespun.training.shard_files import put_back, read_whole

AGREE_SECONDS = 1.0  # between two agreements of several processes on whether to save


class StepLog(Callback):
    """Lightning's way to a Recorder. The loss is this rank's estimate; the Recorder takes their mean."""

    def __init__(self, recorder: Recorder, *, padding_share: Callable[[], float]) -> None:
        self.recorder, self.padding_share = recorder, padding_share
        self.loss: torch.Tensor | None = None
        self.rows, self.rate = 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.recorder.restart_clock()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int) -> None:
        self.rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)  # before the schedule moves it on

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, FineTuner)
        # Lightning has divided the loss by the passes of a step; their sum is this rank's estimate of the step's mean.
        share = outputs["loss"].detach()
        self.loss = share if self.loss is None else self.loss + share
        self.rows += batch.counted * trainer.world_size
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        assert pl_module.gradient_norm is not None
        self.recorder.step(
            trainer.global_step, epoch=trainer.current_epoch, rate=self.rate, rows=self.rows, loss=self.loss,
            norm=pl_module.gradient_norm,
        )  # fmt: skip
        self.loss, self.rows = None, 0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.recorder.flush()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        share = self.padding_share()
        self.recorder.validated(metrics, trainer.global_step, epoch=trainer.current_epoch, padding_share=share)


class Alive(Callback):
    """Lets the launcher of several processes hear that this one gets on, and how far it is."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        progressed()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        progressed()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        progressed()

    def on_train_batch_end(self, *_: Any) -> None:
        progressed()

    def on_validation_batch_start(self, *_: Any) -> None:
        progressed()

    def on_validation_batch_end(self, *_: Any) -> None:
        progressed()

    def on_test_batch_start(self, *_: Any) -> None:
        progressed()

    def on_test_batch_end(self, *_: Any) -> None:
        progressed()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        at_rest()


class Mining(Callback):
    """Lets a miner choose by the model as it is before each epoch, in training's arithmetic; checkpoints keep its choice."""

    def __init__(self, miner: Miner, precision: str) -> None:
        self.miner, self.precision = miner, precision

    def state_dict(self) -> dict[str, Any]:
        return self.miner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.miner.load_state_dict(state_dict)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, FineTuner)
        if self.miner.epoch == trainer.current_epoch:  # taken up at its beginning
            return
        with arithmetic(pl_module.model, self.precision):  # which the module's own hook then puts into its phase
            self.miner.mine(pl_module.model, epoch=trainer.current_epoch, progressed=progressed)


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


class StoreIO(CheckpointIO):
    """Lightning's way to a Store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        self.store.write(checkpoint, Path(path).name, best=storage_options or "")

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Returns a checkpoint with all tensors whole, also where they lie in shards."""
        checkpoint = self.outline(path)
        if checkpoint.pop("sharded", False):
            put_back(checkpoint, read_whole(self.store.shards_of(Path(path))))
        return checkpoint

    def outline(self, path: Any) -> dict[str, Any]:
        """Returns a checkpoint without what lies in shards, after these have been verified, too."""
        return dict(self.store.read(Path(path)))

    def remove_checkpoint(self, path: Any) -> None:
        raise AssertionError("the Store removes its files itself")


class Saver(Checkpoint):
    """Saves the state inside epochs, the best weights after them, and on a signal; puts a run back where it stood.

    The state is only ever saved inside an epoch, between two steps or before the first: there Lightning restarts exactly. What
    an epoch's end changes (the best epoch, early stopping) is in the state that the next epoch's beginning saves.
    """

    def __init__(self, store: Store, loader: BatchLoader, *, monitor: str, mode: str, seconds: float, flush: Any) -> None:
        self.store, self.loader, self.flush = store, loader, flush
        self.monitor, self.sign, self.seconds = monitor, 1 if mode == "max" else -1, seconds
        self.best_score, self.best_epoch, self.best_file = float("-inf"), -1, ""
        self.epoch_ended = False
        self.saved_at = self.agreed_at = time.monotonic()
        self.steps, self.agree_after = 0, 1  # since the last agreement; the next one, as rank zero has said
        self.signals = Signals()
        self.average: WeightAveraging | None = None  # whose weights are validated, where there is one

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.best_score, "epoch": self.best_epoch, "file": self.best_file}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score, self.best_epoch, self.best_file = (state_dict[key] for key in ("score", "epoch", "file"))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # Lightning has set its own by now; `listening` puts the first ones back
            signal.signal(number, self.signals.remember if trainer.is_global_zero else signal.SIG_IGN)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if self.epoch_ended and batch_idx == 0:
            self._between_steps(trainer, done=0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        if done % trainer.accumulate_grad_batches == 0 and done < trainer.num_training_batches:
            self._between_steps(trainer, done)

    def _between_steps(self, trainer: pl.Trainer, done: int) -> None:
        if not self._agree(trainer, done):
            return
        self.loader.position = {"epoch": trainer.current_epoch, "batch": done}
        self.save(trainer)
        heard = self.signals.heard
        heard = heard if trainer.world_size == 1 else trainer.strategy.broadcast(heard)
        if heard:
            raise InterruptError(heard, "interrupted; a checkpoint is saved: start again to go on from here")

    def _agree(self, trainer: pl.Trainer, done: int) -> bool:
        due = self.epoch_ended or self.signals.heard is not None or time.monotonic() - self.saved_at >= self.seconds
        if trainer.world_size == 1:
            return due
        self.steps += 1
        if done and self.seconds and self.steps < self.agree_after:
            return False
        passed, self.agreed_at = time.monotonic() - self.agreed_at, time.monotonic()
        after = max(1, min(2 * self.agree_after, int(self.steps * AGREE_SECONDS / max(passed, 1e-3))))
        self.steps = 0
        due, self.agree_after = trainer.strategy.broadcast((due, after))
        return bool(due)

    def save(self, trainer: pl.Trainer) -> None:
        """Saves the training state; never one whose loss is not a number."""
        self.flush()
        path = self.store.folder / f"state-{trainer.global_step:09d}.ckpt"
        trainer.save_checkpoint(path, storage_options=self.best_file)
        if trainer.is_global_zero:
            self.store.prune()
        self.epoch_ended, self.saved_at = False, time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epoch_ended = True
        score = self.sign * float(trainer.callback_metrics[self.monitor])
        if score > self.best_score:
            self.best_score, self.best_epoch = score, trainer.current_epoch
            self.best_file = f"best-{trainer.global_step:09d}.ckpt"
            weights = trainer.strategy.lightning_module_state_dict()
            if self.average is not None:
                assert self.average._average_model is not None  # noqa: SLF001  (Lightning has no other way to it)
                weights = self.average._average_model.module.state_dict()  # noqa: SLF001
            trainer.strategy.save_checkpoint({"state_dict": weights}, self.store.folder / self.best_file)
            trainer.strategy.barrier()  # whoever reads it finds it whole

    def load_best(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Puts the weights of the best epoch into the module.

        Raises:
            DivergedError: no epoch is the best, for the monitored metric was never a number.
        """
        if not self.best_file:
            raise DivergedError(f"{self.monitor} was never a number; lower optimizer.lr or take another task.monitor")
        best = trainer.strategy.load_checkpoint(self.store.folder / self.best_file)
        trainer.strategy.load_model_state_dict(best, strict=module.strict_loading)
