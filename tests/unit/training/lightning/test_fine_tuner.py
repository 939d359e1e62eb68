"""The loss of a pass: in float32 whatever the arithmetic, each row by its share, both answers of R-Drop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import multiprocessing, nn

from finespun.data.batches import Batches
from finespun.data.loader import Rows
from finespun.tasks.base import Batch, Outputs, first_rows
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

    def augment(_self: Any, given: Batch, _encoder: Any, **where: Any) -> Batch:
        told.append({"rows": given.rows, **where})
        return given

    monkeypatch.setattr(type(TASK), "augment", augment)
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


class OwnLoss(type(TASK)):  # type: ignore[misc]
    """A task whose model computes its loss, and whose rows have one or two of what the loss is a mean over."""

    from_logits: ClassVar[bool] = False

    def forward(self, model: Any, batch: Batch) -> Any:
        logits = model(**batch.inputs).logits
        return {"logits": logits, "loss": nn.functional.cross_entropy(logits, batch.targets, reduction="none")}

    def losses(self, output: Any, batch: Batch, *, training: bool = False) -> torch.Tensor:
        return output["loss"] + (1.0 if training else 0.0)

    def predict(self, model: Any, inputs: dict[str, torch.Tensor]) -> Outputs:
        return [*model(**inputs).logits.argmax(1, keepdim=True).double().numpy()]


def test_a_task_may_own_its_loss_and_reduce_its_outputs() -> None:
    task = OwnLoss.model_validate(TASK.model_dump())
    module = tuner(Linear())
    module.task = task
    losses = nn.functional.cross_entropy(module.model(FEATURES).logits, TARGETS, reduction="none")
    assert torch.equal(module.training_step(batch(), 0), 6 * ((losses + 1.0) * WEIGHTS).sum())
    module._collect(batch())
    assert [module._mine[row].tolist() for row in range(6)] == module.model(FEATURES).logits.argmax(1, keepdim=True).tolist()


class Pair(NamedTuple):
    one: torch.Tensor
    other: tuple[torch.Tensor, ...]


def test_the_first_rows_of_whatever_a_model_returned() -> None:
    found = first_rows({"a": torch.arange(3), "b": Pair(torch.eye(3), (torch.ones(3),))}, 2)
    assert found["a"].tolist() == [0, 1]
    assert isinstance(found["b"], Pair)
    assert found["b"].one.shape == (2, 3)
    assert found["b"].other[0].shape == (2,)
    assert batch().those_that_count().rows.tolist() == list(range(batch().counted))


@pytest.mark.parametrize(("passes", "world"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_the_gradient_is_that_of_the_mean_over_all_that_counts(passes: int, world: int) -> None:
    counts = np.array([1.0, 5.0, 2.0, 0.0, 3.0, 4.0, 7.0])
    table = pa.table({"target": np.arange(7)})
    step_shares = np.zeros(7)
    for rank in range(world):
        parts = Batches(np.ones(7, np.int32), step_rows=4, seed=1, rank=rank, world_size=world, passes=passes, counts=counts)
        for part in parts:
            rows = Rows(table, Collating(), None, counts=counts)[part]
            step_shares[part.rows[: part.counted]] += rows.weights.numpy()[: part.counted]
            assert not rows.weights.numpy()[part.counted :].any()
    steps = Batches(np.ones(7, np.int32), step_rows=4, seed=1, counts=counts).steps()
    for step in steps:
        assert np.allclose(step_shares[step], counts[step] / counts[step].sum())
    whole = Batches(np.ones(7, np.int32), step_rows=4, seed=None, counts=counts)
    rows = Rows(table, Collating(), None, counts=counts)
    assert sorted(weight for part in whole for weight in rows[part].weights.tolist()) == sorted(counts)


class Collating:
    model_columns: ClassVar[tuple[str, ...]] = ()

    def collate(self, columns: Any, encoder: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        return {}, torch.tensor(columns["target"])
