"""Full fine-tuning leaves nothing out."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from finespun.models.pretrained import load_model
from finespun.strategies.full import Full


def test_every_parameter_is_in_one_group_at_the_whole_rate(tiny_bert: Path) -> None:
    model = load_model(tiny_bert, auto_class="AutoModelForSequenceClassification", options={"num_labels": 2}, new_head=True)
    tuning = Full().tune(model)
    [group] = tuning.groups
    assert group.parameters == dict(model.named_parameters())
    assert {"classifier.weight", "bert.embeddings.word_embeddings.weight"} <= set(group.parameters)
    assert group.lr_scale == 1.0
    assert tuning.model is model


def test_it_has_no_options() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Full(blocks=3)  # type: ignore[call-arg]
