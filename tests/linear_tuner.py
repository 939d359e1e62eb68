"""A FineTuner of a linear layer, and what one of several processes does with it: spawned, they import it from here."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn

from finespun.tasks.base import Batch
from finespun.tasks.text_classification import TextClassification
from finespun.training.lightning.fine_tuner import FineTuner
from finespun.training.optimization import Plan

TASK = TextClassification(max_length=8, label_smoothing=0.0, monitor="val/accuracy", monitor_mode="max")
FEATURES, TARGETS = torch.randn(6, 4, generator=torch.manual_seed(0)), torch.tensor([0, 1, 1, 0, 1, 0])
WEIGHTS = torch.tensor([1.0, 2.0, 1.0, 0.5, 0.25, 0.0]) / 6


class Linear(nn.Module):
    """Answers a row by its features; with `noise`, another answer each time a row comes."""

    def __init__(self, *, noise: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.noise = nn.Linear(4, 2), noise

    def forward(self, features: torch.Tensor) -> Any:
        """Returns logits, as transformers does."""
        return SimpleNamespace(
            logits=self.layer(features) + self.noise * torch.arange(len(features))[:, None] * torch.eye(2)[0]
        )


def tuner(model: nn.Module, *, r_drop: float | None = None) -> FineTuner:
    """Makes one; `r_drop` as in the section `trainer`."""
    plan: Any = Plan(groups=[], optimizer=None, scheduler=None, total_steps=1, seed=0, r_drop=r_drop)  # type: ignore[arg-type]
    found = FineTuner(model=model, task=TASK, encoder=None, labels=["no", "yes"], plan=plan)  # type: ignore[arg-type]
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    found._trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=2, accumulate_grad_batches=3, current_epoch=0, global_rank=0, state=state
    )
    found._fabric = None
    return found


def batch() -> Batch:
    """All six rows."""
    return Batch({"features": FEATURES}, TARGETS, torch.arange(6), WEIGHTS, 6)


def validate_as_rank(rank: int, folder: str) -> None:
    """Validates six rows on rank 0 and none on rank 1; writes what each then finds."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    module = tuner(Linear())
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    with torch.inference_mode():
        module.validation_step(batch()._replace(counted=0 if rank else 6), 0)
    found = {name: float(metric.compute()) for name, metric in {**module.val_metrics, "val/loss": module.val_loss}.items()}
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
