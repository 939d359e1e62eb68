"""A classical head: its weights are scikit-learn's, in a plain model; nothing else changes; features are computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from finespun.errors import ConfigError
from finespun.strategies.features import Features
from finespun.training import entering
from finespun.training.history import History
from small_run import Train

LR = Features(head="logistic_regression", C=0.5, max_iter=2000)
SVM = Features(head="linear_svm", C=0.5, max_iter=5000)
TARGET = {"_target_": "finespun.strategies.features.Features", "head": "logistic_regression", "C": 0.1, "max_iter": 2000}


def drawn(classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.Generator(np.random.Philox(classes))
    targets = random.integers(0, classes, 200)
    return random.normal(targets[:, None] * 0.5, [0.1, 1, 10, 1, 1], (200, 5)), targets


@pytest.mark.parametrize("classes", [2, 4])
def test_logits_give_the_probabilities_of_scikit_learn(classes: int) -> None:
    features, targets = drawn(classes)
    weight, bias = LR.solve(features, targets, None, classes)
    chances = torch.tensor(features @ weight.T + bias).softmax(dim=1).numpy()
    scaled = StandardScaler().fit_transform(features)
    theirs = LogisticRegression(C=0.5, max_iter=2000).fit(scaled, targets).predict_proba(scaled)
    assert chances == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_margins_are_those_of_scikit_learn(classes: int) -> None:
    features, targets = drawn(classes)
    weight, bias = SVM.solve(features, targets, None, classes)
    logits = features @ weight.T + bias
    scaled = StandardScaler().fit_transform(features)
    theirs = LinearSVC(C=0.5, max_iter=5000, random_state=0).fit(scaled, targets)
    assert (logits[:, 1] if classes == 2 else logits) == pytest.approx(theirs.decision_function(scaled), abs=1e-6)
    assert logits.argmax(axis=1).tolist() == theirs.predict(scaled).tolist()


def test_numbers_are_fitted_by_ridge_and_sets_label_by_label() -> None:
    features, targets = drawn(4)
    numbers = np.stack([targets * 1.7, features[:, 0] - targets], axis=1)
    weight, bias = LR.solve(features, numbers, None, 2)
    scaled = StandardScaler().fit_transform(features)
    assert features @ weight.T + bias == pytest.approx(Ridge(alpha=2.0).fit(scaled, numbers).predict(scaled), abs=1e-6)
    sets = np.stack([targets > 1, targets == 2, targets > 9], axis=1).astype(float)
    weight, bias = LR.solve(features, sets, None, 3)
    logits = features @ weight.T + bias
    theirs = LogisticRegression(C=0.5, max_iter=2000).fit(scaled, sets[:, 1]).decision_function(scaled)
    assert logits[:, 1] == pytest.approx(theirs, abs=1e-5)
    assert (logits[:, 2] < -100).all()


def test_a_label_that_no_row_has_is_never_given() -> None:
    features, targets = drawn(2)
    weight, bias = LR.solve(features, targets * 2, None, 3)
    assert set((features @ weight.T + bias).argmax(axis=1)) == {0, 2}


def test_only_the_last_layer_changes_and_features_are_computed_once(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: value.clone() for name, value in train(tmp_path / "a", strategy=TARGET).tuning.model.state_dict().items()}
    logged: dict[str, Any] = {}
    cache = tmp_path / "features"
    first = train(tmp_path / "b", strategy=TARGET, features=cache, sink=lambda metrics, _: logged.update(metrics))
    assert {"val/loss", "val/accuracy", "val/f1_macro"} <= set(logged)
    assert first.best_score == pytest.approx(logged["val/loss"])
    assert {row["name"] for row in History(tmp_path / "b" / "history.csv").rows()} == set(logged)
    full = train(tmp_path / "c", strategy={"_target_": "finespun.strategies.full.Full"}, trainer__max_epochs=1)
    assert full.tuning.model.state_dict().keys() == before.keys()
    monkeypatch.setattr(entering, "_into", lambda *_: pytest.fail("computed again"))
    again = train(tmp_path / "d", strategy=TARGET, features=cache)
    for name, value in again.tuning.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    other = train(tmp_path / "e", strategy={**TARGET, "C": 0.001}, features=cache).tuning.model.state_dict()
    assert {name for name in before if not torch.equal(before[name], other[name])} == {"classifier.weight", "classifier.bias"}


def test_class_weights_are_heard(train: Train, tmp_path: Path) -> None:
    plain, weighted = (
        train(tmp_path / kind, strategy=TARGET, trainer__imbalance=kind).tuning.model.classifier.bias[1].item()
        for kind in ("ignore", "class_weights")
    )
    assert plain != weighted


def test_a_layer_that_answers_for_each_token_is_refused(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entering, "_into", lambda *_: torch.zeros(2, 3, 4))
    with pytest.raises(ConfigError, match=r"classifier is given \(2, 3, 4\).*take strategy: head"):
        train(tmp_path / "a", strategy=TARGET)
