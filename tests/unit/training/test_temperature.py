"""`calibrate: true`: logits are divided by the temperature of least log loss on validation, in finespun and without it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.special import softmax
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finespun.evaluation.predictor import Predictor
from finespun.tasks.text_classification import TextClassification
from finespun.training import temperature
from helpers import real_rows
from small_run import LABELS, small_config
from tuned import tuned

OPTIONS: dict[str, Any] = small_config().task.model_dump(by_alias=True)
INPUTS = {"input_ids": torch.tensor([[2, 7, 8, 3], [2, 9, 10, 3]])}


def task(**options: Any) -> TextClassification:
    return TextClassification.model_validate(
        {name: value for name, value in {**OPTIONS, **options}.items() if name != "_target_"}
    )


def test_the_head_is_divided_and_nothing_stays_in_the_configuration(tiny_bert: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert).eval()
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.3, -0.2]))
        before = model(**INPUTS).logits
        model.config.calibration_temperature = 2.5
        temperature.fold(model)
        torch.testing.assert_close(model(**INPUTS).logits, before / 2.5)
        temperature.fold(model)
        torch.testing.assert_close(model(**INPUTS).logits, before / 2.5)
    assert not hasattr(model.config, "calibration_temperature")


def test_the_task_chooses_the_temperature_only_if_it_is_asked_to() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 2))
    targets = (random.random(4000) < softmax(logits, axis=1)[:, 1]).astype(int)
    chosen = task(calibrate=True).decide(pa.table({"target": targets}), list(softmax(3 * logits, axis=1)), LABELS)
    assert chosen["calibration_temperature"] == pytest.approx(3.0, rel=0.1)
    assert (task(calibrate=True).decides, task().decides) == (True, False)


def test_without_one_linear_layer_the_configuration_says_the_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temperature, "output_layer", lambda _: None)
    model = SimpleNamespace(config=SimpleNamespace(calibration_temperature=2.0))
    temperature.fold(model)
    outputs = task().settled(vars(model.config)).outputs(np.array([[0.0, 4.0]], dtype=np.float32))
    np.testing.assert_allclose(outputs[0, 1], 1 / (1 + np.exp(-2.0)), rtol=1e-6)


def test_a_calibrated_model_has_the_same_probabilities_in_plain_transformers(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = real_rows(80)
    folder = tuned(
        tmp_path, rows, {"text": "text", "label": "sentiment"}, task={**OPTIONS, "calibrate": True},
        model={"checkpoint": str(tiny_bert)}, trainer__max_epochs=1,
    )  # fmt: skip
    assert "calibrated: temperature " in capsys.readouterr().out
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model.eval()(**tokenizer(rows[0]["text"], truncation=True, return_tensors="pt")).logits[0]
    [answer] = Predictor(folder).predict([{"text": rows[0]["text"]}])
    assert float(logits.softmax(0).max()) == pytest.approx(answer["probability"], abs=1e-5)
