"""A classical head: its answers are scikit-learn's, in a plain model; nothing else changes; features are computed once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from finespun.errors import ConfigError, ModelError
from finespun.models.conversion.forest import Forest
from finespun.models.pretrained import load_model
from finespun.strategies.features import Features
from finespun.strategies.trees import _rounded_down
from finespun.training.frozen import head_inputs
from finespun.training.history import History
from small_run import Train

LR = Features(head="logistic_regression", C=0.5, max_iter=2000, trees=1, min_samples_leaf=1)
SVM = Features(head="linear_svm", C=0.5, max_iter=5000, trees=1, min_samples_leaf=1)
FOREST = Features(head="random_forest", C=1.0, max_iter=1, trees=20, min_samples_leaf=2)
TARGET = {
    "_target_": "finespun.strategies.features.Features", "head": "logistic_regression", "C": 0.1, "max_iter": 2000,
    "trees": 15, "min_samples_leaf": 3,
}  # fmt: skip


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


def test_a_feature_that_never_changes_has_no_say() -> None:
    features, targets = drawn(4)
    weight, bias = LR.solve(features, targets, None, 4)
    more, shifted = LR.solve(np.insert(features, 2, 0.7, axis=1), targets, None, 4)
    assert np.delete(more, 2, axis=1) == pytest.approx(weight, abs=1e-6)
    assert shifted + 0.7 * more[:, 2] == pytest.approx(bias, abs=1e-6)


def test_thresholds_part_numbers_that_are_neighbours_in_single_precision() -> None:
    numbers = 1 + np.arange(9, dtype=np.float32) * np.finfo(np.float32).eps
    between = (numbers[:-1].astype(np.float64) + numbers[1:]) / 2
    rounded = _rounded_down(between)
    assert rounded.dtype == np.float32
    assert np.array_equal(numbers[:, None] > rounded, numbers[:, None] > between)


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
    full = train(
        tmp_path / "c",
        strategy={"_target_": "finespun.strategies.full.Full", "regression_head_lr_scale": 1.0},
        trainer__max_epochs=1,
    )
    assert full.tuning.model.state_dict().keys() == before.keys()
    monkeypatch.setattr(head_inputs, "stopped_at", lambda *_, **__: pytest.fail("computed again"))
    again = train(tmp_path / "d", strategy=TARGET, features=cache)
    for name, value in again.tuning.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    other = train(tmp_path / "e", strategy={**TARGET, "C": 0.001}, features=cache).tuning.model.state_dict()
    assert {name for name in before if not torch.equal(before[name], other[name])} == {"classifier.weight", "classifier.bias"}


def test_a_run_that_is_begun_again_has_one_history(train: Train, tmp_path: Path) -> None:
    for _ in range(2):
        train(tmp_path, strategy=TARGET)
    names = [row["name"] for row in History(tmp_path / "history.csv").rows()]
    assert len(names) == len(set(names))


def test_class_weights_are_heard(train: Train, tmp_path: Path) -> None:
    plain, weighted = (
        train(tmp_path / kind, strategy=TARGET, trainer__imbalance=kind).tuning.model.classifier.bias[1].item()
        for kind in ("ignore", "class_weights")
    )
    assert plain != weighted


def test_sampling_is_refused_for_it_would_not_be_heard(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer.imbalance: weighted_sampling: .*take class_weights"):
        train(tmp_path, strategy=TARGET, trainer__imbalance="weighted_sampling")


def test_a_layer_that_answers_for_each_token_is_refused(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_inputs, "stopped_at", lambda *_, **__: torch.zeros(2, 3, 4))
    with pytest.raises(ConfigError, match=r"classifier is given \(2, 3, 4\).*take strategy: head"):
        train(tmp_path / "a", strategy=TARGET)


def answers(features: np.ndarray, targets: np.ndarray, outputs: int, weights: np.ndarray | None = None) -> torch.Tensor:
    """What the trees say, as tensors."""
    trees = FOREST.solve(features, targets, weights, outputs)._asdict()
    arrays = {name: torch.from_numpy(array) for name, array in trees.items() if isinstance(array, np.ndarray)}
    sizes = {"trees": len(arrays["roots"]), "nodes": len(arrays["feature"]), "outputs": outputs}
    forest = Forest(kind=trees["kind"], depth=trees["depth"], **sizes)
    forest.load_state_dict(arrays)
    return forest(torch.from_numpy(features.astype(np.float32)))


def grown(kind: type, features: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> object:
    return kind(20, min_samples_leaf=2, random_state=0).fit(features, targets, sample_weight=weights)


def test_trees_of_tensors_answer_as_those_of_scikit_learn() -> None:
    features, targets = drawn(4)
    features = features.astype(np.float32).astype(np.float64)
    weights = 0.5 + (targets == 1)
    chances = answers(features, targets, 4, weights).softmax(dim=1).numpy()
    theirs = grown(RandomForestClassifier, features, targets, weights).predict_proba(features)
    assert chances == pytest.approx(theirs, abs=1e-5)
    numbers = np.stack([targets * 1.7, features[:, 0] - targets], axis=1)
    expected = grown(RandomForestRegressor, features, numbers).predict(features)
    assert answers(features, numbers, 2).numpy() == pytest.approx(expected, abs=1e-5)
    one = grown(RandomForestRegressor, features, numbers[:, 0]).predict(features)
    assert answers(features, numbers[:, :1], 1)[:, 0].numpy() == pytest.approx(one, abs=1e-5)
    sets = np.stack([targets > 1, targets == 2, targets > 9], axis=1).astype(float)
    each = grown(RandomForestClassifier, features, sets).predict_proba(features)
    found = answers(features, sets, 3).sigmoid().numpy()
    assert found[:, :2] == pytest.approx(np.stack([each[0][:, 1], each[1][:, 1]], axis=1), abs=1e-5)
    assert found[:, 2] == pytest.approx(0, abs=1e-5)


def test_a_label_without_rows_has_no_share_in_a_forest() -> None:
    features, targets = drawn(2)
    logits = answers(features, targets * 2, 3)
    assert set(logits.argmax(dim=1).tolist()) == {0, 2}
    assert logits.isfinite().all(), "or the loss of a row with that label would be infinite"
    sets = np.stack([targets > 0, targets > 9], axis=1).astype(float)
    assert answers(features, sets, 2).isfinite().all()


def test_a_forest_is_saved_without_a_pickle_and_answers_the_same(train: Train, tmp_path: Path) -> None:
    fitted = train(tmp_path / "a", strategy={**TARGET, "head": "random_forest"})
    model, folder = fitted.tuning.model, tmp_path / "saved"
    model.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "forest.py"}
    again = load_model(folder, auto_class="AutoModelForSequenceClassification", options={})
    ids = torch.arange(4, 20).reshape(2, 8)
    with torch.inference_mode():
        assert torch.equal(again.eval()(input_ids=ids).logits, model(input_ids=ids).logits)
    assert again.config.id2label == model.config.id2label
    with pytest.raises(ModelError, match="random forest.*take the checkpoint that it was grown on"):
        load_model(folder, auto_class="AutoModelForSequenceClassification", options={}, new_head=True)


def test_plain_transformers_loads_a_forest_without_finespun(train: Train, tmp_path: Path) -> None:
    model = train(tmp_path / "a", strategy={**TARGET, "head": "random_forest"}).tuning.model
    model.save_pretrained(tmp_path / "saved")
    ids = torch.arange(4, 20).reshape(2, 8)
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
    code = (
        "import sys, torch; from transformers import AutoModelForSequenceClassification as Auto;"
        "model = Auto.from_pretrained('saved', trust_remote_code=True).eval();"
        "logits = model(input_ids=torch.arange(4, 20).reshape(2, 8)).logits;"
        "print('finespun' in sys.modules, *logits.flatten().tolist())"
    )
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-W", "ignore", "-c", code]
    told = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout.split()
    assert told[0] == "False"
    assert [float(number) for number in told[1:]] == pytest.approx(expected.flatten().tolist(), abs=1e-6)
