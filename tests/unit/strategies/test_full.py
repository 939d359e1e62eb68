"""Full fine-tuning leaves nothing out."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from finespun.models.pretrained import load_model
from finespun.strategies.full import Full


def test_every_parameter_is_in_one_group_at_the_whole_rate(tiny_bert: Path) -> None:
    model = load_model(tiny_bert, auto_class="AutoModelForSequenceClassification", options={"num_labels": 2}, new_head=True)
    tuning = Full(regression_head_lr_scale=10).tune(model)
    [group] = tuning.groups
    assert group.parameters == dict(model.named_parameters())
    assert {"classifier.weight", "bert.embeddings.word_embeddings.weight"} <= set(group.parameters)
    assert group.lr_scale == 1.0
    assert tuning.model is model


def test_what_is_above_the_blocks_of_a_regression_has_a_rate_of_its_own(tiny_bert: Path) -> None:
    options = {"num_labels": 1, "problem_type": "regression"}
    model = load_model(tiny_bert, auto_class="AutoModelForSequenceClassification", options=options, new_head=True)
    below, head = Full(regression_head_lr_scale=10).tune(model).groups
    assert set(head.parameters) == {
        f"{name}.{kind}" for name in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")
    }
    assert (below.lr_scale, head.lr_scale) == (1.0, 10.0)
    assert below.parameters | head.parameters == dict(model.named_parameters())
    assert len(Full(regression_head_lr_scale=1).tune(model).groups) == 1


def test_it_has_no_options() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Full(blocks=3)  # type: ignore[call-arg]
