"""The longest batches are tried before step one, nothing of it stays, and what fails is said with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from finespun.data.batches import Batches
from finespun.data.prepared import PreparedData
from finespun.errors import MachineError, ModelError
from finespun.training import fit as fitting
from finespun.training.lightning.rehearsal import _unchanged, longest
from small_run import STEADY, Train, same_bits

LAST = {
    "_target_": "finespun.strategies.last_n.LastN", "blocks": 1, "freeze_embeddings": True, "head_lr_scale": 1.0,
    "layer_decay": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"trainer__r_drop": 1.0},
        {"runtime__device_batch_size": 5},
        {"strategy": LAST},
    ],
)  # fmt: skip
def test_a_run_ends_in_the_same_bits_as_without_it(
    changes: dict[str, Any], train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    tried: list[Any] = []
    real = fitting.rehearse
    monkeypatch.setattr(fitting, "rehearse", lambda job, *loaders: (real(job, *loaders), tried.append(job)))
    rehearsed = train(tmp_path / "one", dropout=0.1, **changes)
    monkeypatch.setattr(fitting, "rehearse", lambda *_: None)
    assert same_bits(rehearsed, train(tmp_path / "other", dropout=0.1, **changes))
    assert len(tried) == 1


class Odd(nn.Module):
    """Everything that a forward and a backward pass could leave behind."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen, self.drop = nn.BatchNorm1d(3), nn.Linear(3, 3), nn.Dropout(0.5)
        self.frozen.requires_grad_(requires_grad=False)
        self.norm.eval()


def test_nothing_stays_of_it() -> None:
    model = Odd()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    with suppress(KeyError), _unchanged(model, torch.device("cpu")):
        model.train()
        model.requires_grad_(requires_grad=True)
        model.frozen(model.drop(model.norm(torch.randn(8, 3)))).sum().backward()
        raise KeyError
    assert not torch.equal(torch.zeros(3), weights["norm.running_var"])
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.frozen.weight.requires_grad
    assert model.norm.weight.requires_grad


@pytest.mark.parametrize(
    ("step_rows", "passes", "devices", "rows"), [(16, 1, 1, 16), (16, 4, 1, 4), (16, 2, 3, 3), (9, 1, 1, 7)]
)
def test_the_longest_batch_has_as_many_rows_as_a_process_is_given(step_rows: int, passes: int, devices: int, rows: int) -> None:
    lengths = np.array([3, 9, 1, 9, 4, 4, 2] if rows == 7 else [*range(20)], dtype=np.int32)
    batches = Batches(lengths, step_rows=step_rows, seed=1, passes=passes, world_size=devices)
    rows_of = type("Rows", (), {"__getitem__": lambda _, part: part.rows})
    loader: Any = SimpleNamespace(batches=batches, rows=rows_of())
    found: Any = longest(loader)
    assert len(found) == rows
    assert sorted(lengths[found]) == sorted(lengths)[-rows:]


def broken(monkeypatch: pytest.MonkeyPatch, fails: Callable[[torch.Tensor], bool], error: Exception) -> None:
    """Lets a model fail on some batches."""
    from transformers import BertForSequenceClassification

    whole = BertForSequenceClassification.forward

    def forward(self: Any, input_ids: Any = None, **more: Any) -> Any:
        if fails(input_ids):
            raise error
        return whole(self, input_ids, **more)

    monkeypatch.setattr(BertForSequenceClassification, "forward", forward)


def test_memory_is_asked_for_before_step_one_and_the_advice_helps(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: PreparedData
) -> None:  # fmt: skip
    whole = train(tmp_path / "whole", dropout=0.0, **STEADY)
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: 9 bytes")
    broken(monkeypatch, lambda ids: torch.is_grad_enabled() and len(ids) > 8, error)
    with pytest.raises(MachineError) as raised:
        train(tmp_path / "small", dropout=0.0, **STEADY)
    assert f"the longest batch of training (input_ids 16 x {prepared.open('train')['length'].to_numpy().max()}" in str(
        raised.value
    )
    assert "lower runtime.device_batch_size" in str(raised.value)
    assert not (tmp_path / "small" / "history.csv").exists()
    cut = train(tmp_path / "small", dropout=0.0, runtime__device_batch_size=8, **STEADY)
    pairs = zip(whole.tuning.model.parameters(), cut.tuning.model.parameters(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in pairs)


def test_validation_is_tried_too(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 3 GiB of which 1 is free"
    )
    broken(monkeypatch, lambda ids: torch.is_inference_mode_enabled() and len(ids) > 4, error)
    with pytest.raises(MachineError, match=r"the longest batch of validation .* the GPU's memory ran out"):
        train(tmp_path)


def test_what_a_model_cannot_compute_is_its_error(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    broken(monkeypatch, lambda ids: torch.is_grad_enabled() and len(ids) > 4, error)
    with pytest.raises(
        ModelError, match=r"fails on the longest batch of training .*shapes cannot be multiplied; choose another"
    ):
        train(tmp_path)


def test_a_run_that_is_taken_up_is_not_rehearsed(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, trainer__max_epochs=1)
    assert list(tmp_path.glob("state-*.ckpt"))
    monkeypatch.setattr("finespun.training.lightning.rehearsal.longest", lambda _: pytest.fail("it was rehearsed"))
    train(tmp_path, trainer__max_epochs=2)
