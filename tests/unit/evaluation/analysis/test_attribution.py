"""Attributions add up to the difference of log-odds, and are checked against deleting words at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForSequenceClassification
from transformers.modeling_outputs import ImageClassifierOutput

from finespun.evaluation.analysis.attribution import attributions, deletion_check, field_numbers, pixel_attributions
from finespun.evaluation.drawing import with_heat

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
        whole, empty = (model(input_ids=ids, **more).logits[0].diff().item() for ids in (IDS, BLANK[None]))
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


class Corner(torch.nn.Module):
    """A classifier of images that looks at the upper left quarter alone."""

    def forward(self, pixel_values: torch.Tensor) -> ImageClassifierOutput:
        bright = pixel_values[:, :, :4, :4].mean(dim=(1, 2, 3))
        return ImageClassifierOutput(logits=torch.stack([bright, -bright], dim=1))


def test_pixels_add_up_and_only_those_that_are_looked_at_count() -> None:
    pixels = torch.rand(1, 3, 8, 8)
    found = pixel_attributions(Corner(), pixels, target=0, blank=torch.zeros_like(pixels))
    assert found.sum() == pytest.approx(2 * pixels[:, :, :4, :4].mean().item(), rel=1e-4)
    assert np.count_nonzero(found[4:]) == np.count_nonzero(found[:, 4:]) == 0
    fields = field_numbers(8, 8, (2, 2))
    assert np.bincount(fields.ravel(), weights=found.ravel())[1:].tolist() == [0, 0, 0]
    assert np.unique(field_numbers(7, 5, (3, 2))).tolist() == [*range(6)]


def test_heat_is_red_where_a_field_speaks_for_the_label_and_blue_against_it() -> None:
    shown = np.asarray(with_heat(Image.new("RGB", (16, 16), "grey"), [1.0, -1.0, 0.0, 0.0], (2, 2))).astype(int)
    assert shown.shape == (96, 96, 3)
    red, blue, grey = shown[4, 4], shown[4, -4], shown[-4, -4]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert np.ptp(grey) <= 2
