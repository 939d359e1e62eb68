"""Several labels and numbers for images: trained from a table, answered as plain transformers answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image

from finespun.errors import DataError
from finespun.evaluation.predictor import Predictor
from helpers import ROOT
from tuned import measured, tuned


def shipped(name: str, **options: Any) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "conf" / "task" / f"{name}.yaml").read_text()) | options


def rows_of(folder: Path, count: int = 40) -> list[dict[str, str]]:
    """Pictures of one grey each, some with a white corner: brightness and corner are what there is to be seen."""
    random, found = np.random.default_rng(3), []
    folder.mkdir()
    for number in range(count):
        grey, corner = int(random.integers(0, 200)), bool(number % 2)
        pixels = np.full((32, 32, 3), grey, np.uint8) + random.integers(0, 9, (32, 32, 3), dtype=np.uint8)
        pixels[:16, :16] = 255 if corner else pixels[:16, :16]
        Image.fromarray(pixels).save(folder / f"{number}.png")
        names = ["corner"] * corner + ["dark"] * (grey < 100)
        found.append({"file": f"pictures/{number}.png", "seen": ";".join(names), "grey": str(grey)})
    return found


CHANGES: dict[str, Any] = {"trainer__max_epochs": 2, "trainer__batch_size": 8, "optimizer__lr": 3e-3}
CASES = {
    "image_regression": {"image": "file", "target": "grey"},
    "image_multi_label": {"image": "file", "labels": "seen"},
}


@pytest.mark.parametrize("name", CASES)
def test_images_have_numbers_and_sets_of_labels(tmp_path: Path, tiny_net: Path, name: str) -> None:
    rows = rows_of(tmp_path / "pictures")
    given: dict[str, Any] = CHANGES | {"task": shipped(name), "model": {"checkpoint": str(tiny_net)}}
    given["task"]["augmentation"] |= {"flip": True}
    folder = tuned(tmp_path, rows, CASES[name], **given)
    model, processor = (
        each.from_pretrained(folder) for each in (transformers.AutoModelForImageClassification, transformers.AutoImageProcessor)
    )
    images = [Image.open(tmp_path / row["file"]) for row in rows[:6]]
    with torch.no_grad():
        logits = model.eval()(**processor(images, return_tensors="pt")).logits.double().numpy()
    predictor = Predictor(folder)
    predictor.task = predictor.task.reading_from(tmp_path)
    answers = predictor.predict(rows[:6])
    if name == "image_regression":
        assert [each["predicted_grey"] for each in answers] == pytest.approx(logits[:, 0], rel=1e-4)
        assert np.ptp(logits[:, 0]) > 0
    else:
        assert model.config.problem_type == "multi_label_classification"
        for answer, row in zip(answers, logits, strict=True):
            chances = dict(zip(["corner", "dark"], 1 / (1 + np.exp(-row)), strict=True))
            assert answer["probabilities"] == pytest.approx({each: chances[each] for each in answer["probabilities"]}, abs=1e-5)
            over = dict(zip(chances, model.config.label_thresholds, strict=True))
            assert {*answer["labels"]} == {label for label in chances if chances[label] >= over[label]}
    given.pop("model")
    found = measured(tmp_path, rows, CASES[name], folder, **given, evaluation__baselines=True)
    assert set(found.baselines) == {"image_regression": {"mean", "pixels_ridge"}}.get(name, {"label_shares", "pixels_logistic"})
    assert set(found.shown) <= set(found.scores)


def test_bad_answers_of_images_are_told_by_their_file(tmp_path: Path, tiny_net: Path) -> None:
    rows = rows_of(tmp_path / "pictures", 12)
    rows[3]["grey"] = "bright"
    model = {"checkpoint": str(tiny_net)}
    with pytest.raises(DataError, match=r"grey 'bright': is not a number"):
        tuned(tmp_path, rows, CASES["image_regression"], task=shipped("image_regression"), model=model)
    (tmp_path / "pictures" / "5.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"file 'pictures/5.png': is no image of a known kind"):
        tuned(tmp_path, rows, CASES["image_multi_label"], task=shipped("image_multi_label"), model=model)
