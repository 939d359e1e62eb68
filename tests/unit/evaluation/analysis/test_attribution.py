"""Attributions add up to the logit's difference, and are checked against deleting words at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from finespun.evaluation.analysis.attribution import attributions, deletion_check

captum = pytest.importorskip("captum")
IDS, BLANK = torch.tensor([[2, 70, 80, 90, 3]]), torch.tensor([2, 0, 0, 0, 3])


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> Any:
    found = AutoModelForSequenceClassification.from_pretrained(tiny_bert).eval()
    with torch.no_grad():
        found.classifier.weight.mul_(20)
    return found


def test_they_add_up_to_the_difference_from_an_empty_text(model: Any) -> None:
    more = {"attention_mask": torch.ones_like(IDS)}
    found = attributions(model, IDS, more, target=1, blank=BLANK, steps=100)
    with torch.no_grad():
        whole, empty = (model(input_ids=ids, **more).logits[0, 1].item() for ids in (IDS, BLANK[None]))
    assert found.shape == (5,)
    assert found.sum() == pytest.approx(whole - empty, rel=0.02)
    np.testing.assert_allclose(found[[0, 4]], 0, atol=1e-6)


def test_what_matters_is_told_from_what_does_not() -> None:
    matters = [3, 7]

    def without(deleted: list[int]) -> float:
        return 0.9 - 0.4 * sum(place in deleted for place in matters)

    order = [*matters, *(place for place in range(20) if place not in matters)]
    area, random, spread = deletion_check(order, without)
    assert area < random - spread
    area, random, spread = deletion_check(order[::-1], without)
    assert area > random
