"""Scores equal scikit-learn's, for whole splits and for resampled ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from finespun.tasks.scores import classification_scores

LABELS = ["a", "b", "c"]


def draw(seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.Generator(np.random.Philox(seed))
    return random.integers(0, 3, rows), random.dirichlet([0.5, 0.5, 0.5], rows)


def theirs(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    predicted = probabilities.argmax(1)
    common = {"labels": [0, 1, 2], "zero_division": 0}
    precision = metrics.precision_score(targets, predicted, average=None, **common)
    recall = metrics.recall_score(targets, predicted, average=None, **common)
    found = {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "f1_macro": metrics.f1_score(targets, predicted, average="macro", **common),
        "f1_micro": metrics.f1_score(targets, predicted, average="micro", **common),
        "log_loss": metrics.log_loss(targets, probabilities, labels=[0, 1, 2]),
    }
    found |= {f"precision/{label}": precision[index] for index, label in enumerate(LABELS)}
    return found | {f"recall/{label}": recall[index] for index, label in enumerate(LABELS)}


@given(st.integers(0, 10_000))
def test_scores_equal_scikit_learn(seed: int) -> None:
    targets, probabilities = draw(seed)
    ours = classification_scores(targets, probabilities, np.ones((1, 60)), LABELS)
    for name, value in theirs(targets, probabilities).items():
        assert ours[name][0] == pytest.approx(value, abs=1e-9), name


@given(st.integers(0, 10_000))
def test_weights_are_the_same_as_repeating_rows(seed: int) -> None:
    targets, probabilities = draw(seed)
    rows = np.random.Generator(np.random.Philox(seed + 1)).integers(0, 60, (2, 60))
    weights = np.stack([np.bincount(each, minlength=60) for each in rows]).astype(float)
    ours = classification_scores(targets, probabilities, weights, LABELS)
    for position, each in enumerate(rows):
        for name, value in theirs(targets[each], probabilities[each]).items():
            assert ours[name][position] == pytest.approx(value, abs=1e-9), name


def test_a_certain_mistake_has_a_finite_loss() -> None:
    scores = classification_scores(np.array([0]), np.array([[0.0, 1.0, 0.0]]), np.ones((1, 1)), LABELS)
    assert np.isfinite(scores["log_loss"][0])
