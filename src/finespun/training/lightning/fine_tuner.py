"""FineTuner: the one LightningModule, for fit, validate and test; it is given a model, a Task and factories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric

from finespun.tasks.base import Batch, Encoder, Outputs, Task, first_rows
from finespun.training.optimization import Plan, seed_draws, step_seed
from finespun.training.phases import begin_epoch

NEVER = 10**9  # epochs


class FineTuner(pl.LightningModule):
    """Trains and evaluates any model on any Task: the task runs it, and owns the loss and what is kept of outputs.

    After `trainer.validate` or `trainer.test`, `collected` has one array a row in the split's order, on rank zero alone.
    """

    def __init__(
        self, *, model: nn.Module, task: Task, encoder: Encoder, labels: Sequence[str], plan: Plan | None = None
    ) -> None:
        """`plan` says how to train; without one the module only evaluates."""
        super().__init__()
        self.strict_loading = False  # what is frozen and replayed is not among the weights that a checkpoint holds
        self.model, self.task, self.encoder = model, task, encoder
        self._plan = plan
        self.val_metrics = task.metrics(labels).clone(prefix="val/")
        self.val_loss = MeanMetric(nan_strategy="disable")  # others would leave such rows out of the mean
        self.collected: Outputs | None = None
        self._mine: dict[int, NDArray[np.float64]] = {}  # position in the split -> outputs, of this rank
        self.gradient_norm: torch.Tensor | None = None

    @property
    def plan(self) -> Plan:
        assert self._plan is not None, "a module without a plan only evaluates"
        return self._plan

    def configure_model(self) -> None:
        """Does nothing: where the model comes in shards, it does before Lightning sees it (`sharding`)."""

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
        batch = self.task.augment(batch, self.encoder, epoch=self.current_epoch, seed=self.plan.seed)
        if self.plan.r_drop is None:
            losses = self.task.losses(self.task.forward(self.model, batch), batch, training=True)
        else:
            losses = self._losses_of_two(batch.inputs, batch.targets, self.plan.r_drop)
        scale = self.trainer.world_size * self.trainer.accumulate_grad_batches
        return (losses * batch.weights).sum() * scale  # as a product of vectors autocast would compute it in half precision

    def _losses_of_two(self, inputs: dict[str, torch.Tensor], targets: torch.Tensor, weight: float) -> torch.Tensor:
        """Each row goes through the model twice, at once, with other dropout (R-Drop: Liang et al., 2021; half their loss)."""
        twice = {name: torch.cat([each, each]) for name, each in inputs.items()}
        one, other = self.model(**twice).logits.chunk(2)
        losses = [self.task.loss(logits, targets, training=True) for logits in (one, other)]
        return (losses[0] + losses[1] + weight * self.task.divergence(one, other, targets)) / 2

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds the rows that count to the metrics of the whole split; outside of `fit` their outputs are collected instead."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._collect(batch)
            return
        output = first_rows(self.task.forward(self.model, batch), batch.counted)
        batch = batch.those_that_count()
        self.val_metrics.update(output, batch.targets)  # of no rows too: ranks gather alike
        self.val_loss.update(self.task.losses(output, batch), batch.weights)
        self.log("val/loss", self.val_loss)  # objects, not values: each is computed once, over all rows of all ranks
        self.log_dict(self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collects the outputs of the rows that count."""
        self._collect(batch)

    def _collect(self, batch: Batch) -> None:
        outputs = self.task.evaluate(self.model, batch)[: batch.counted]
        self._mine |= dict(zip(batch.rows.tolist(), outputs, strict=False))

    def on_validation_epoch_end(self) -> None:
        """Gathers what `validate` collected."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._gather()

    def on_test_epoch_end(self) -> None:
        """Gathers what `test` collected."""
        self._gather()

    def _gather(self) -> None:
        """Puts the outputs of all ranks together on rank zero, through the CPU, however the devices talk to each other."""
        parts: list[Any] = [self._mine]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            dist.gather_object(self._mine, parts if self.trainer.is_global_zero else None, group=dist.new_group(backend="gloo"))
        self._mine = {}
        if self.trainer.is_global_zero:
            together = {row: output for part in parts for row, output in part.items()}
            assert len(together) == sum(map(len, parts)), "each row must be predicted once"
            self.collected = [together[row] for row in range(len(together))]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips by norm and keeps the norm, on its device, for whoever logs it."""
        limit = gradient_clip_val if gradient_clip_val is not None else float("inf")
        trained = (p for group in self.plan.groups for p in group.parameters.values())
        parameters = [p for p in trained if p.grad is not None]
        norm: Any = nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
        self.gradient_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of shards: a sum over ranks

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
