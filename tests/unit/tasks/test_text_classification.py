"""The task's parts: padding, loss, metrics, outputs, baselines."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import f1_score

from finespun.tasks.text_classification import TextClassification

TASK = TextClassification(max_length=8, label_smoothing=0.0, monitor="val/f1_macro", monitor_mode="max")


def test_the_loss_is_one_number_a_row() -> None:
    logits, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    losses = TASK.loss(logits, targets)
    assert losses.shape == (5,)
    assert losses.mean() == pytest.approx(torch.nn.functional.cross_entropy(logits, targets).item(), abs=1e-6)


def test_metrics_over_batches_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(50, 3), torch.randint(0, 3, (50,))
    metrics = TASK.metrics(["a", "b", "c"])
    for start in range(0, 50, 16):
        metrics.update(logits[start : start + 16], targets[start : start + 16])
    whole = f1_score(targets, logits.argmax(1), average="macro")
    assert metrics.compute()["f1_macro"].item() == pytest.approx(whole, abs=1e-6)


def test_validation_and_evaluation_give_the_same_numbers() -> None:
    targets, logits = torch.tensor([0, 0, 1, 1]), torch.eye(4)[[0, 1, 1, 1]]
    metrics = TASK.metrics(["a", "b", "absent", "unseen"])
    metrics.update(logits, targets)
    rows = pa.table({"row": range(4), "target": targets.numpy()})
    told = TASK.judge(rows, list(TASK.outputs(logits.numpy())), ["a", "b", "absent", "unseen"]).scores(np.ones((1, 4)))
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx(
        {name: told[name][0] for name in ("accuracy", "f1_macro", "f1_micro")}
    )


def test_outputs_are_softmax_and_predictions_are_read_by_people() -> None:
    logits = np.array([[1000.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    outputs = TASK.outputs(logits)
    assert outputs.sum(axis=1) == pytest.approx([1, 1])
    assert outputs[1] == pytest.approx(torch.tensor(logits[1]).softmax(0).numpy(), abs=1e-7)
    found = TASK.predictions(pa.table({"row": [0, 1]}), list(outputs), ["no", "yes"], top_k=1)
    assert found == [{"label": "no", "probability": 1.0}, {"label": "yes", "probability": 0.880797}]


def test_baselines_are_fitted_on_training_rows_alone() -> None:
    train = pa.table({"text": ["good film", "great film", "bad film", "awful film"] * 5, "target": [1, 1, 0, 0] * 5})
    split = pa.table({"text": ["a great one", "an awful one", "film"]})
    found = TASK.baselines(train, split, ["bad", "good"])
    assert np.stack(found["majority_class"]).tolist() == [[0.5, 0.5]] * 3
    assert np.stack(found["tfidf_logistic"]).argmax(axis=1)[:2].tolist() == [1, 0]
    assert np.stack(found["tfidf_logistic"]).sum(axis=1) == pytest.approx([1, 1, 1])


def test_baselines_of_texts_without_a_word_see_their_characters() -> None:
    train = pa.table({"text": ["🙂", "🙂 !", "🙁", "🙁 ?"] * 5, "target": [1, 1, 0, 0] * 5})
    found = TASK.baselines(train, pa.table({"text": ["🙂?", "🙁!", ""]}), ["bad", "good"])
    assert np.stack(found["tfidf_logistic"]).argmax(axis=1)[:2].tolist() == [1, 0]


@pytest.mark.parametrize("wrong", [{"max_length": 0}, {"monitor": "val/nothing"}, {"monitor_mode": "up"}, {"maxlength": 3}])
def test_options_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TextClassification(**{"max_length": 8, "label_smoothing": 0.0, "monitor": "val/loss", "monitor_mode": "min", **wrong})


def test_labels_are_smoothed_in_training_alone() -> None:
    task = TextClassification(max_length=8, label_smoothing=0.2, monitor="val/loss", monitor_mode="min")
    logits, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    plain = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    smooth = torch.nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=0.2)
    assert torch.equal(task.loss(logits, targets), plain)
    assert torch.equal(task.loss(logits, targets, training=True), smooth)
