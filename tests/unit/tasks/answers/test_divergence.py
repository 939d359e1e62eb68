"""How far two answers are apart: what torch's distributions say, nothing for the same answer, nothing for padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from torch.distributions import Bernoulli, Categorical, kl_divergence

from finespun.config import targets
from finespun.config.targets import Target
from helpers import ROOT

ONE, OTHER = torch.randn(3, 4, 5, generator=torch.manual_seed(0)), torch.randn(3, 4, 5, generator=torch.manual_seed(1))


def task(name: str) -> Any:
    return targets.build("task", Target.model_validate(yaml.safe_load((ROOT / "conf" / "task" / f"{name}.yaml").read_text())))


def symmetric(one: Any, other: Any) -> torch.Tensor:
    return (kl_divergence(one, other) + kl_divergence(other, one)) / 2


def test_classes() -> None:
    one, other = ONE[:, 0], OTHER[:, 0]
    found = task("text_classification").divergence(one, other, torch.zeros(3))
    assert torch.allclose(found, symmetric(Categorical(logits=one), Categorical(logits=other)), atol=1e-6)


def test_labels_that_are_yes_or_no() -> None:
    one, other = ONE[:, 0], OTHER[:, 0]
    found = task("multi_label").divergence(one, other, torch.zeros(3, 5))
    assert torch.allclose(found, symmetric(Bernoulli(logits=one), Bernoulli(logits=other)).mean(dim=1), atol=1e-6)


def test_numbers() -> None:
    found = task("text_regression").divergence(torch.ones(2, 1), torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))
    assert found.tolist() == [0.0, 4.0]


def test_words_alone_count() -> None:
    answers = torch.tensor([[-100, 1, 2, -100], [0, 1, 2, 3], [-100] * 4])
    found = task("token_classification").divergence(ONE, OTHER, answers)
    each = symmetric(Categorical(logits=ONE), Categorical(logits=OTHER))
    expected = torch.stack([each[0, 1:3].mean(), each[1].mean(), torch.tensor(0.0)])
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["text_classification", "multi_label", "text_regression", "token_classification", "image_classification"]
)
def test_the_same_answer_is_no_way_off(name: str) -> None:
    logits = ONE if name == "token_classification" else ONE[:, 0]
    answers = torch.zeros(3, 4, dtype=torch.long)
    assert torch.equal(task(name).divergence(logits, logits, answers), torch.zeros(3))
