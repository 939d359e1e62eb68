"""The loss of a pass: in float32 whatever the arithmetic, each row by its share, both answers of R-Drop."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from finespun.tasks.base import Batch
from finespun.tasks.text_classification import TextClassification
from finespun.training.fine_tuner import FineTuner
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
        return SimpleNamespace(
            logits=self.layer(features) + self.noise * torch.arange(len(features))[:, None] * torch.eye(2)[0]
        )


def tuner(model: nn.Module, *, r_drop: float | None = None) -> FineTuner:
    plan: Any = Plan(groups=[], optimizer=None, scheduler=None, total_steps=1, seed=0, r_drop=r_drop)  # type: ignore[arg-type]
    found = FineTuner(model=model, task=TASK, encoder=None, labels=["no", "yes"], plan=plan)  # type: ignore[arg-type]
    found._trainer = SimpleNamespace(world_size=2, accumulate_grad_batches=3, current_epoch=0, global_rank=0)  # type: ignore[assignment]
    found._fabric = None
    return found


def batch() -> Batch:
    return Batch({"features": FEATURES}, TARGETS, torch.arange(6), WEIGHTS, 6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_is_float32_in_any_arithmetic(dtype: torch.dtype) -> None:
    module = tuner(Linear())
    with torch.autocast("cpu", dtype=dtype):
        loss = module.training_step(batch(), 0)
        expected = 6 * (TASK.loss(module.model(FEATURES).logits, TARGETS) * WEIGHTS).sum()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def test_two_answers_to_each_row_are_half_the_loss_of_r_drop() -> None:
    module = tuner(Linear(noise=0.3), r_drop=2.0)
    one, other = module.model(torch.cat([FEATURES, FEATURES])).logits.chunk(2)
    one_p, other_p = one.softmax(-1), other.softmax(-1)
    divergence = ((one_p * (one_p / other_p).log()).sum(-1) + (other_p * (other_p / one_p).log()).sum(-1)) / 2
    paper = nn.functional.cross_entropy(one, TARGETS, reduction="none") + nn.functional.cross_entropy(
        other, TARGETS, reduction="none"
    )
    expected = 6 * ((paper + 2.0 * divergence) / 2 * WEIGHTS).sum()
    assert module.training_step(batch(), 0).item() == pytest.approx(expected.item(), rel=1e-5)
    assert divergence.min() > 0.01


def _validate(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    module = tuner(Linear())
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    with torch.inference_mode():
        module.validation_step(batch()._replace(counted=0 if rank else 6), 0)
    found = {name: float(metric.compute()) for name, metric in {**module.val_metrics, "val/loss": module.val_loss}.items()}
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


def test_a_rank_without_rows_of_its_own_finds_what_the_others_find(tmp_path: Path) -> None:
    multiprocessing.start_processes(_validate, args=(str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    logits = Linear()(FEATURES).logits
    assert first == second
    assert first["val/accuracy"] == pytest.approx((logits.argmax(1) == TARGETS).float().mean().item())
    assert first["val/loss"] == pytest.approx(TASK.loss(logits, TARGETS).mean().item())
