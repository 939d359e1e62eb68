"""Training a head on its inputs: a bare loop, for a step takes less time than a trainer's hooks around it.

Order, dropout, gradients, schedule, validation and early stopping are those of Lightning's loop: both end in the same weights.
The head computes in float32, whatever the frozen part did. Checkpoints hold everything and may be taken at any step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from finespun.data.batches import Batches
from finespun.errors import DivergedError, InterruptError
from finespun.training.checkpoints import Signals, Store
from finespun.training.frozen.head_inputs import Head, HeadInputs, scores_of
from finespun.training.job import Job
from finespun.training.optimization import lay_side_by_side, seed_draws, step_seed
from finespun.training.phases import begin_epoch

GATHERED = 64  # steps whose rows are put side by side at once
POINTS_AN_EPOCH = 20  # of the training loss: each is the mean of the steps since the last


@dataclass
class Standing:
    """Where training stands: what a checkpoint holds beside weights and optimizer."""

    epoch: int = 0
    batch: int = 0  # steps of this epoch that are done
    step: int = 0
    best_epoch: int = -1
    best_score: float = float("-inf")


class HeadLoop:
    """Trains a head; afterwards it has its best weights."""

    def __init__(self, job: Job, head: Head) -> None:
        plan, task, config = job.plan, job.task, job.config
        self.modules, self.plan, self.task, self.config = head.modules, plan, task, config
        self.store, self.recorder = Store(job.store.folder / "head"), job.recorder
        self.optimizer = plan.optimizer(plan.groups)
        self.parameters = [p for group in plan.groups for p in group.parameters.values()]
        late = any(group.from_epoch for group in plan.groups)  # a gradient that is not there is not one of zeros
        self.gradients = None if late else lay_side_by_side(self.optimizer)
        self.scheduler = plan.scheduler(self.optimizer, plan.total_steps)
        self.clip = config.trainer.gradient_clip_norm or float("inf")
        self.metrics = task.metrics(job.labels).clone(prefix="val/").to(self.parameters[0].device)
        self.sign = 1 if task.monitor_mode == "max" else -1
        self.random = any(isinstance(module, nn.Dropout) and module.p for module in head.modules.modules())
        self.standing = Standing()
        self.best: dict[str, torch.Tensor] = {}
        self.signals, self.saved_at = Signals(), time.monotonic()

    def run(self, train: HeadInputs, val: HeadInputs, batches: Batches, row_weights: NDArray[np.float64] | None) -> Standing:
        """Trains to the best epoch, from the newest whole checkpoint where there is one.

        Raises:
            DivergedError: the loss is no longer a number.
            InterruptError: a signal came; a checkpoint is saved.
        """
        weights = None if row_weights is None else torch.from_numpy(row_weights).float().to(train.targets.device)
        self._take_up()
        self.recorder.every = -(-len(batches.lengths) // batches.step_rows // POINTS_AN_EPOCH)
        with self.signals.listening(), tqdm(
            total=self.config.trainer.max_epochs, initial=self.standing.epoch, unit="epoch", leave=False,
            disable=None if self.config.runtime.progress_bar else True,  # None: where there is no terminal
        ) as bar:  # fmt: skip
            for epoch in range(self.standing.epoch, self.config.trainer.max_epochs):
                self._epoch(epoch, train, weights, batches)
                found = self._validate(val)
                bar.update()
                bar.set_postfix({name: f"{value:.3f}" for name, value in found.items()})
                if self._may_stop(found):
                    break
        if not self.best:
            raise DivergedError(f"{self.task.monitor} was never a number; lower optimizer.lr or take another task.monitor")
        self.modules.load_state_dict(self.best)
        for parameter in self.parameters:
            parameter.data, parameter.grad = parameter.data.clone(), None
        return self.standing

    def _epoch(self, epoch: int, train: HeadInputs, weights: torch.Tensor | None, batches: Batches) -> None:
        begin_epoch(self.modules, self.plan.groups, epoch)
        self.recorder.restart_clock()
        for number, rows, features, targets in self._steps(epoch, train, batches):
            if self.random:
                seed_draws(step_seed(self.plan.seed, epoch, number, 0), features.device)
            losses = self.task.loss(self.modules(features), targets, training=True)
            shares = torch.full_like(losses, 1 / len(rows)) if weights is None else weights[rows] / len(rows)
            torch.autograd.backward(losses, shares)
            self._apply(losses.detach() @ shares, len(rows))
            if self._due():
                self._save()

    def _steps(
        self, epoch: int, train: HeadInputs, batches: Batches
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:  # fmt: skip
        """Yields number, rows, features and targets of each step still to be done; many steps are gathered at once."""
        batches.resume_at(epoch, 0)
        steps, device = [torch.from_numpy(rows) for rows in batches.steps()], train.features.device
        for start in range(self.standing.batch, len(steps), GATHERED):
            part = [rows.to(device) for rows in steps[start : start + GATHERED]]
            rows, sizes = torch.cat(part), [len(each) for each in part]
            gathered = zip(part, torch.split(train.features[rows], sizes), torch.split(train.targets[rows], sizes), strict=True)
            for number, (mine, features, targets) in enumerate(gathered, start):
                self.standing.batch = number + 1
                yield number, mine, features, targets

    def _apply(self, loss: torch.Tensor, rows: int) -> None:
        rate = max(group["lr"] for group in self.optimizer.param_groups)  # before the schedule moves it on
        if self.gradients is None:
            norm = nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
            self.optimizer.step()
            self.optimizer.zero_grad()
        else:
            norm = torch.linalg.vector_norm(self.gradients)
            self.gradients.mul_((self.clip / (norm + 1e-6)).clamp_(max=1.0))  # torch's own formula
            self.optimizer.step()
            self.gradients.zero_()
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step()
        self.standing.step += 1
        self.recorder.step(self.standing.step, epoch=self.standing.epoch, rate=rate, rows=rows, loss=loss, norm=norm)

    def _validate(self, val: HeadInputs) -> dict[str, float]:
        self.recorder.flush()
        found = scores_of(self.task, self.metrics, self.modules.eval(), val)
        self.recorder.validated(found, self.standing.step, epoch=self.standing.epoch, padding_share=0.0)
        return found

    def _may_stop(self, found: dict[str, float]) -> bool:
        """Ends an epoch: keeps the best weights, steps a schedule that watches; whether patience is at an end."""
        standing, score = self.standing, self.sign * found[self.task.monitor]
        if score > standing.best_score:
            standing.best_score, standing.best_epoch = score, standing.epoch
            self.best = {name: tensor.clone() for name, tensor in self.modules.state_dict().items()}
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(found[self.task.monitor])
        patience = self.config.trainer.early_stopping_patience
        stop = patience is not None and standing.epoch - standing.best_epoch >= max(1, patience)
        standing.epoch, standing.batch = self.config.trainer.max_epochs if stop else standing.epoch + 1, 0
        if self._due():
            self._save()
        return stop

    def _due(self) -> bool:
        waited = time.monotonic() - self.saved_at
        return self.signals.heard is not None or waited >= self.config.runtime.checkpoint_seconds

    def _save(self) -> None:
        self.recorder.flush()
        state = {
            "standing": vars(self.standing), "weights": self.modules.state_dict(), "best": self.best,
            "optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict(),
        }  # fmt: skip
        self.store.folder.mkdir(parents=True, exist_ok=True)
        self.store.write(state, f"state-{self.standing.step:09d}.ckpt")
        self.store.prune()
        self.saved_at = time.monotonic()
        if self.signals.heard is not None:
            raise InterruptError(self.signals.heard, "interrupted; a checkpoint is saved: start again to go on from here")

    def _take_up(self) -> None:
        path = self.store.newest()
        self.recorder.history.cut_back(int(path.stem.removeprefix("state-")) if path else -1)
        if path is None:
            return
        print(f"taking up {path.name} ({self.store.folder})")  # noqa: T201
        state: dict[str, Any] = self.store.read(path)
        self.standing, self.best = Standing(**state["standing"]), state["best"]
        self.modules.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
