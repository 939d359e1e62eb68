"""Checkpoints that a kill, a full disk or a flipped bit cannot take away, and taking a run up from them.

They live outside DVC's outputs (DVC deletes those before a run), in a folder named by the digest of the stage's inputs.
Each file is written beside its place, synced, named with its digest, and moved; the last two are kept, verified when read.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pickle
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint, WeightAveraging

from finespun.data.loader import BatchLoader
from finespun.errors import BusyError, InterruptError, MachineError, ModelError

KEPT = 2
AGREE_EVERY = 10  # batches between two agreements of several processes on whether to save


class Store:
    """The folder of one run's checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder for this process.

        Raises:
            BusyError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise BusyError(
                    f"process {file.read().strip()} is already training this very configuration; wait for it, or end it"
                    " and start again: its checkpoints will be used"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def write(self, state: Any, name: str) -> Path:
        """Writes a file that exists whole or not at all.

        Raises:
            MachineError: the disk is full or refuses.
        """
        path = self.folder / name
        partial = path.with_name(name + ".partial")
        try:
            with partial.open("wb") as file:
                digested = _Digested(file)
                torch.save(state, cast("IO[bytes]", digested))
                file.flush()
                os.fsync(file.fileno())
            path.with_name(name + ".sha256").write_text(digested.digest.hexdigest())
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            partial.unlink(missing_ok=True)
            raise MachineError(
                f"{path}: cannot be written ({error}); free space or mend the permission, then start again"
            ) from error
        return path

    def read(self, path: Path) -> Any:
        """Reads a file back, tensors and plain values only.

        Raises:
            ModelError: its bytes are not those that were written.
        """
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == path.with_name(path.name + ".sha256").read_text():
                return torch.load(path, map_location="cpu", weights_only=True)
            reason = "its sha256 is not the one written beside it"
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error)
        raise ModelError(f"{path}: is damaged ({reason}); delete it to fall back to an older one")

    def states(self) -> list[Path]:
        """Checkpoints of the training state, newest first."""
        return sorted(self.folder.glob("state-*.ckpt"), reverse=True)

    def newest(self) -> Path | None:
        """Returns the newest checkpoint that is whole; damaged ones are named and passed over."""
        for path in self.states():
            try:
                self.read(path)
            except ModelError as error:
                print(f"warning: {error}")  # noqa: T201  (a line for the terminal, on the way to the older one)
                continue
            return path
        return None

    def prune(self) -> None:
        """Keeps the newest checkpoints and the best weights that they name."""
        for path in self.states()[KEPT:]:
            self._remove(path)
        named = set()
        for path in self.states():
            note = path.with_suffix(".best")
            named.add(note.read_text() if note.exists() else "")
        newest = max((p.name for p in self.folder.glob("best-*.ckpt")), default="")
        for path in self.folder.glob("best-*.ckpt"):
            if path.name not in named | {newest}:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        for each in (path, path.with_name(path.name + ".sha256"), path.with_suffix(".best")):
            each.unlink(missing_ok=True)

    def note(self, name: str, value: Any = None) -> Any:
        """Keeps (or, without a value, recalls) a small fact beside the checkpoints, such as the MLflow run's id."""
        path = self.folder / f"{name}.json"
        if value is None:
            return json.loads(path.read_text()) if path.exists() else None
        path.with_suffix(".partial").write_text(json.dumps(value))
        path.with_suffix(".partial").replace(path)
        return value

    def remove(self) -> None:
        """Removes everything: the stage has succeeded."""
        shutil.rmtree(self.folder, ignore_errors=True)


class _Digested:
    """A file that is hashed while it is written, so that its digest is of what was meant, not of what the disk kept."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


class StoreIO(CheckpointIO):
    """Lightning's way to a Store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        self.store.write(checkpoint, Path(path).name)

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> dict[str, Any]:
        return dict(self.store.read(Path(path)))

    def remove_checkpoint(self, path: Any) -> None:
        raise AssertionError("the Store removes its files itself")


class Saver(Checkpoint):
    """Saves the state inside epochs, the best weights after them, and on a signal; puts a run back where it stood.

    The state is only ever saved between two batches of one epoch: there Lightning restarts exactly. What an epoch's end
    changes (the best epoch, early stopping) is in the state that the next epoch's first batch saves.
    """

    def __init__(self, store: Store, loader: BatchLoader, *, monitor: str, mode: str, seconds: float, flush: Any) -> None:
        self.store, self.loader, self.flush = store, loader, flush
        self.monitor, self.sign, self.seconds = monitor, 1 if mode == "max" else -1, seconds
        self.best_score, self.best_epoch, self.best_file = float("-inf"), -1, ""
        self.epoch_ended = False
        self.saved_at = time.monotonic()
        self.signal: int | None = None
        self.average: WeightAveraging | None = None  # whose weights are validated, where there is one

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.best_score, "epoch": self.best_epoch, "file": self.best_file}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score, self.best_epoch, self.best_file = (state_dict[key] for key in ("score", "epoch", "file"))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # Lightning has set its own by now; `listening` puts the first ones back
            signal.signal(number, self._remember if trainer.is_global_zero else signal.SIG_IGN)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While it lasts, signals may be heard; afterwards they mean again what they meant before."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        self.loader.position = {"epoch": trainer.current_epoch, "batch": done}
        between_steps = done % trainer.accumulate_grad_batches == 0 and done < trainer.num_training_batches
        if between_steps and self._agree(trainer, done):
            self.save(trainer)
            heard = self.signal if trainer.world_size == 1 else trainer.strategy.broadcast(self.signal)
            if heard:
                raise InterruptError(heard, "interrupted; a checkpoint is saved: start again to go on from here")

    def _agree(self, trainer: pl.Trainer, done: int) -> bool:
        due = self.epoch_ended or self.signal is not None or time.monotonic() - self.saved_at >= self.seconds
        if trainer.world_size == 1:
            return due
        steps = done // trainer.accumulate_grad_batches
        return bool((self.seconds == 0 or steps == 1 or steps % AGREE_EVERY == 0) and trainer.strategy.broadcast(due))

    def save(self, trainer: pl.Trainer) -> None:
        """Saves the training state; never one whose loss is not a number."""
        self.flush()
        path = self.store.folder / f"state-{trainer.global_step:09d}.ckpt"
        if trainer.is_global_zero:
            path.with_suffix(".best").write_text(self.best_file)
        trainer.save_checkpoint(path)
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
            if trainer.is_global_zero:
                self.store.write(weights, self.best_file)

    def load_best(self, module: pl.LightningModule) -> None:
        """Puts the weights of the best epoch into the module."""
        module.load_state_dict(self.store.read(self.store.folder / self.best_file), strict=module.strict_loading)
