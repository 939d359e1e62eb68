"""Lightning's training step on one device, without the hooks that nothing of ours listens to.

A step of Lightning's calls about seventy functions that do nothing here. Where one process trains without a gradient scaler,
what is left is written out; progress, validation, checkpoints and taking a run up stay Lightning's, and so does any other case.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop


class Steps(_TrainingEpochLoop):
    """To the bit what Lightning's loop does with a FineTuner; of callbacks, the start and end of a batch alone are called."""

    @classmethod
    def put_into(cls, trainer: pl.Trainer) -> None:
        """Replaces a trainer's loop over the batches of an epoch where this one would do."""
        if trainer.world_size == 1 and getattr(trainer.precision_plugin, "scaler", None) is None:
            theirs = trainer.fit_loop.epoch_loop
            trainer.fit_loop.epoch_loop = cls(trainer, min_steps=theirs.min_steps, max_steps=theirs.max_steps)

    def advance(self, data_fetcher: Any) -> None:
        """Trains on one batch.

        Raises:
            StopIteration: there is none left.
        """
        if self.restarting:  # the first after taking up: Lightning finds out where it is
            super().advance(data_fetcher)
            return
        self.val_loop.restarting = False
        trainer: Any = self.trainer
        module, callbacks, optimizer = trainer.lightning_module, trainer.callbacks, trainer.optimizers[0]
        batch, _, _ = next(data_fetcher)
        number = self.batch_idx + 1
        self.batch_progress.is_last_batch = data_fetcher.done
        batch = module.transfer_batch_to_device(batch, module.device, 0)
        self.batch_progress.increment_ready()
        for callback in callbacks:
            callback.on_train_batch_start(trainer, module, batch, number)
        self.batch_progress.increment_started()
        if number % trainer.accumulate_grad_batches == 0:
            optimizer.zero_grad()
        with trainer.precision_plugin.train_step_context():
            loss = module.training_step(batch, number) / trainer.accumulate_grad_batches
        torch.autograd.backward(loss)
        if not self._should_accumulate():
            module.configure_gradient_clipping(optimizer, trainer.gradient_clip_val)
            progress = self.automatic_optimization.optim_progress.optimizer.step
            progress.increment_ready()
            optimizer.step()
            progress.increment_completed()
        self.batch_progress.increment_processed()
        self.update_lr_schedulers("step", update_plateau_schedulers=False)
        for callback in callbacks:
            callback.on_train_batch_end(trainer, module, {"loss": loss.detach()}, batch, number)
        self.batch_progress.increment_completed()
