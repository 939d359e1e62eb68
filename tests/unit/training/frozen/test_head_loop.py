"""A head trained alone: the same weights and history as in the whole model, and never where it would be wrong."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from finespun.errors import InterruptError
from finespun.strategies.full import Full
from finespun.strategies.head import Head
from finespun.tasks.base import Batch
from finespun.training.frozen import head_inputs as entering_module
from finespun.training.frozen.head_inputs import find_head
from finespun.training.frozen.head_loop import HeadLoop
from finespun.training.history import History
from helpers import ROOT
from small_run import STEADY, Train, same_bits

HEAD = yaml.safe_load((ROOT / "conf" / "strategy" / "head.yaml").read_text())
PLATEAU = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 0, "factor": 0.5}


def history(folder: Path, name: str) -> dict[int, float]:
    return {int(row["step"]): float(row["value"]) for row in History(folder / "history.csv").rows() if row["name"] == name}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"strategy": {**HEAD, "train_pooler": False}},
        {"scheduler": PLATEAU},
        {"trainer__imbalance": "class_weights"},
        {"trainer__imbalance": "weighted_sampling"},
        {"trainer__gradient_clip_norm": None},
        {"trainer__gradient_clip_norm": 0.01},  # every step is clipped
        {"trainer__early_stopping_patience": 0, "task__monitor": "val/accuracy", "task__monitor_mode": "max"},
    ],
    ids=["plain", "no-pooler", "plateau", "class-weights", "sampling", "no-clipping", "clipping", "stopped-early"],
)
def test_a_head_alone_ends_as_in_the_whole_model(train: Train, tmp_path: Path, changes: dict[str, Any]) -> None:
    options: dict[str, Any] = {"strategy": HEAD, "trainer__max_epochs": 4, "dropout": 0.2, **STEADY, **changes}
    whole = train(tmp_path / "whole", **options)
    alone = train(tmp_path / "alone", features=tmp_path / "features", **options)
    assert (tmp_path / "features" / "train").exists(), "the head was trained alone"
    ours, theirs = alone.tuning.model.state_dict(), whole.tuning.model.state_dict()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6, rtol=1e-6) for name in theirs)
    trained = alone.tuning.groups[0].parameters.values()
    assert all(each.untyped_storage().nbytes() == each.nbytes and each.grad is None for each in trained), "no views are left"
    assert (alone.best_epoch, alone.steps) == (whole.best_epoch, whole.steps)
    assert (alone.steps < 20) == ("trainer__early_stopping_patience" in changes)
    for name in ("train/loss", "train/learning_rate", "train/gradient_norm", "val/loss", "val/f1_macro"):
        assert history(tmp_path / "alone", name) == pytest.approx(history(tmp_path / "whole", name), abs=1e-5, rel=1e-5), name


@pytest.mark.parametrize("steps", [1, 5, 6, 7, 17])
def test_a_killed_head_is_taken_up_in_the_same_bits(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    options: dict[str, Any] = {"strategy": HEAD, "features": tmp_path / "features", "dropout": 0.2}
    first = train(tmp_path / "a", **options)
    save = HeadLoop._save

    def save_then_die(self: HeadLoop) -> None:
        save(self)
        if self.standing.step == steps:
            raise FileNotFoundError

    monkeypatch.setattr(HeadLoop, "_save", save_then_die)
    with pytest.raises(FileNotFoundError):
        train(tmp_path / "b", **options)
    monkeypatch.setattr(HeadLoop, "_save", save)
    second = train(tmp_path / "b", **options)
    assert same_bits(first, second)
    assert (first.best_score, first.steps) == (second.best_score, second.steps)
    assert history(tmp_path / "a", "train/loss") == history(tmp_path / "b", "train/loss")


def test_a_signal_saves_and_a_second_run_computes_nothing_again(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"strategy": HEAD, "features": tmp_path / "features", "runtime__checkpoint_seconds": 1000.0}
    apply = HeadLoop._apply

    def apply_and_signal(self: HeadLoop, *told: Any) -> None:
        apply(self, *told)
        if self.standing.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(HeadLoop, "_apply", apply_and_signal)
    with pytest.raises(InterruptError) as caught:
        train(tmp_path / "a", **options)
    assert caught.value.exit_code == 143
    monkeypatch.setattr(HeadLoop, "_apply", apply)
    monkeypatch.setattr(entering_module, "stopped_at", None)  # what is frozen is not run again
    assert same_bits(train(tmp_path / "a", **options), train(tmp_path / "b", **options))


TEXTS = ("Bert", "Roberta", "Electra", "XLMRoberta", "DistilBert")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 100}


def text_model(kind: str) -> tuple[Any, Batch]:
    import transformers

    classes = getattr(transformers, f"{kind}ForSequenceClassification")
    sizes = DISTIL if kind == "DistilBert" else {**SIZES, "pad_token_id": 0}
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    inputs = {"input_ids": torch.randint(5, 90, (2, 4)), "attention_mask": mask}
    return classes(classes.config_class(**sizes)), Batch(inputs, torch.zeros(2), torch.arange(2), torch.ones(2), 2)


@pytest.mark.parametrize("kind", TEXTS)
def test_heads_of_other_architectures_are_found_where_they_are_chains(kind: str) -> None:
    model, example = text_model(kind)
    found = find_head(model, Head(train_pooler=True, head_lr_scale=1.0).tune(model).groups, example)
    if kind == "DistilBert":  # a part of its head is the call of a function, which no chain of modules holds
        assert found is None
        return
    assert found is not None
    assert found.first_token
    with torch.inference_mode():
        given = entering_module.stopped_at(model.eval(), found.modules[0], example, given=True)
        assert torch.allclose(found.modules(given[:, :1]), model(**example.inputs).logits, atol=1e-6)


def test_no_head_where_more_than_a_head_trains() -> None:
    model, example = text_model("Bert")
    assert find_head(model, Full(regression_head_lr_scale=10).tune(model).groups, example) is None


def test_a_head_that_says_something_else_alone_is_refused() -> None:
    model, example = text_model("Bert")
    groups = Head(train_pooler=True, head_lr_scale=1.0).tune(model).groups
    first = torch.nn.Linear(32, 32)
    model.bert.pooler.forward = lambda hidden: torch.tanh(first(hidden.mean(dim=1)))  # looks at all tokens
    assert find_head(model, groups, example) is None


def test_a_head_of_zeros_or_with_weights_that_nothing_reads_is_refused() -> None:
    """Of a head of zeros one cannot see what it reads; weights without a gradient would be decayed."""
    model, example = text_model("Bert")
    torch.nn.init.zeros_(model.classifier.weight)
    assert find_head(model, Head(train_pooler=True, head_lr_scale=1.0).tune(model).groups, example) is None
    model, example = text_model("Bert")
    model.classifier.register_parameter("unread", torch.nn.Parameter(torch.ones(2)))
    assert find_head(model, Head(train_pooler=True, head_lr_scale=1.0).tune(model).groups, example) is None
