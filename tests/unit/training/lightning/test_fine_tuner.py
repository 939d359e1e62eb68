"""The loss of a pass: in float32 whatever the arithmetic, each row by its share, both answers of R-Drop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing, nn

from linear_tuner import FEATURES, TARGETS, TASK, WEIGHTS, Linear, batch, tuner, validate_as_rank


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


def test_random_changes_are_told_the_rows_the_epoch_and_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(type(TASK), "augment", lambda _self, inputs, _encoder, **where: (told.append(where), inputs)[1])
    module = tuner(Linear())
    module._plan = replace(module.plan, seed=7)
    module._trainer.current_epoch = 4
    module.training_step(batch(), 0)
    [where] = told
    assert (where["rows"].tolist(), where["epoch"], where["seed"]) == (list(range(6)), 4, 7)


def test_a_rank_without_rows_of_its_own_finds_what_the_others_find(tmp_path: Path) -> None:
    multiprocessing.spawn(validate_as_rank, args=(str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    logits = Linear()(FEATURES).logits
    assert first == second
    assert first["val/accuracy"] == pytest.approx((logits.argmax(1) == TARGETS).float().mean().item())
    assert first["val/loss"] == pytest.approx(TASK.loss(logits, TARGETS).mean().item())
