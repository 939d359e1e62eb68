"""FineTuner: the one LightningModule. It is given a model, a Task and factories; it never sees a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric

from finespun.tasks.base import Batch, Encoder, Task
from finespun.training.optimization import Plan, seed_draws, step_seed
from finespun.training.phases import begin_epoch

NEVER = 10**9  # epochs


class FineTuner(pl.LightningModule):
    """Trains any transformers model whose output has `logits`, on any Task."""

    def __init__(self, *, model: nn.Module, task: Task, encoder: Encoder, labels: Sequence[str], plan: Plan) -> None:
        super().__init__()
        self.strict_loading = False  # what is frozen and replayed is not among the weights that a checkpoint holds
        self.model, self.task, self.encoder, self.plan = model, task, encoder, plan
        self.val_metrics = task.metrics(labels).clone(prefix="val/")
        self.val_loss = MeanMetric(nan_strategy="disable")  # others would leave such rows out of the mean
        self.gradient_norm: torch.Tensor | None = None

    def on_train_start(self) -> None:
        """Puts an epoch that is taken up inside into its phase: Lightning does not start it again."""
        begin_epoch(self, self.plan.groups, self.current_epoch)

    def on_train_epoch_start(self) -> None:
        """Puts an epoch into its phase: what trains in it, and which parts are in eval mode."""
        begin_epoch(self, self.plan.groups, self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Returns this pass's share of the step's mean loss.

        Lightning averages over accumulated passes and DDP over ranks, so the share is scaled up by both: the gradient is
        that of the mean over the step's rows, however they were cut up.
        """
        seed_draws(step_seed(self.plan.seed, self.current_epoch, batch_idx, self.global_rank), self.device)
        inputs = self.task.augment(
            batch.inputs, self.encoder, rows=batch.rows, epoch=self.current_epoch, seed=self.plan.seed
        )  # fmt: skip
        if self.plan.r_drop is None:
            losses = self.task.loss(self.model(**inputs).logits, batch.targets, training=True)
        else:
            losses = self._losses_of_two(inputs, batch.targets, self.plan.r_drop)
        scale = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return (losses * batch.weights).sum() * scale  # as a product of vectors autocast would compute it in half precision

    def _losses_of_two(self, inputs: dict[str, torch.Tensor], targets: torch.Tensor, weight: float) -> torch.Tensor:
        """Each row goes through the model twice, at once, with other dropout (R-Drop: Liang et al., 2021; half their loss)."""
        twice = {name: torch.cat([each, each]) for name, each in inputs.items()}
        one, other = self.model(**twice).logits.chunk(2)
        losses = [self.task.loss(logits, targets, training=True) for logits in (one, other)]
        return (losses[0] + losses[1] + weight * self.task.divergence(one, other, targets)) / 2

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Moves what is computed with; Lightning would look for tensors in everything that a batch holds."""
        return batch.to(device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds the rows that count to the metrics of the whole split."""
        logits, targets = self.model(**batch.inputs).logits[: batch.counted], batch.targets[: batch.counted]
        self.val_metrics.update(logits, targets)  # of no rows too: ranks gather alike
        self.val_loss.update(self.task.loss(logits, targets))
        self.log("val/loss", self.val_loss)  # objects, not values: each is computed once, over all rows of all ranks
        self.log_dict(self.val_metrics)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips by norm and keeps the norm, on its device, for whoever logs it."""
        limit = gradient_clip_val if gradient_clip_val is not None else float("inf")
        trained = (p for group in self.plan.groups for p in group.parameters.values())
        parameters = [p for p in trained if p.grad is not None]
        self.gradient_norm = nn.utils.clip_grad_norm_(parameters, limit, foreach=True)

    def configure_optimizers(self) -> Any:
        """The optimizer of the strategy's groups and a schedule by step, or by the monitored metric after each epoch."""
        optimizer = self.plan.optimizer(self.plan.groups)
        scheduler = self.plan.scheduler(optimizer, self.plan.total_steps)
        schedule: dict[str, Any] = {"scheduler": scheduler, "interval": "step"}
        if isinstance(scheduler, ReduceLROnPlateau):  # Lightning skips its step after an epoch that was taken up inside
            schedule = {"scheduler": scheduler, "interval": "epoch", "frequency": NEVER, "monitor": self.task.monitor}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_validation_end(self) -> None:
        """Steps a schedule that watches the monitored metric."""
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step(float(self.trainer.callback_metrics[self.task.monitor]))
