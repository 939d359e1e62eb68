"""Scores equal scikit-learn's, for whole splits and for resampled ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from finespun.tasks.metrics.scores import classification_scores

LABELS = ["a", "b", "c"]
ROWS = 30


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers and probabilities of six labels, of which some have no row and some are never predicted."""
    random = np.random.Generator(np.random.Philox(seed))
    there, given = (random.choice(6, random.integers(1, 6), replace=False) for _ in range(2))
    chances = random.dirichlet(np.full(6, 0.5), ROWS)
    chances[:, given] += 1
    return random.choice(there, ROWS), chances / chances.sum(axis=1, keepdims=True)


def theirs(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """What scikit-learn's functions say, `zero_division` apart as they are called by default."""
    predicted, labels = probabilities.argmax(1), range(6)
    precision = metrics.precision_score(targets, predicted, average=None, labels=labels, zero_division=0)
    recall = metrics.recall_score(targets, predicted, average=None, labels=labels, zero_division=0)
    found = {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "f1_macro": metrics.f1_score(targets, predicted, average="macro", zero_division=0),
        "f1_micro": metrics.f1_score(targets, predicted, average="micro", zero_division=0),
        "log_loss": metrics.log_loss(targets, probabilities, labels=labels),
    }
    found |= {f"precision/{label}": precision[label] for label in labels}
    return found | {f"recall/{label}": recall[label] for label in labels}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_scores_equal_scikit_learn_with_absent_and_unpredicted_labels(seed: int) -> None:
    targets, probabilities = draw(seed)
    ours = classification_scores(targets, probabilities, np.ones((1, ROWS)), list(map(str, range(6))))
    assert {name: values[0] for name, values in ours.items()} == pytest.approx(theirs(targets, probabilities), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_scores_of_a_resample_are_those_of_its_rows(seed: int) -> None:
    targets, probabilities = draw(seed)
    rows = np.random.Generator(np.random.Philox(seed + 1)).integers(0, ROWS, (2, ROWS))
    weights = np.stack([np.bincount(each, minlength=ROWS) for each in rows]).astype(float)
    ours = classification_scores(targets, probabilities, weights, list(map(str, range(6))))
    for position, each in enumerate(rows):
        expected = theirs(targets[each], probabilities[each])
        assert {name: values[position] for name, values in ours.items()} == pytest.approx(expected, abs=1e-9)


def test_a_certain_mistake_has_a_finite_loss() -> None:
    scores = classification_scores(np.array([0]), np.array([[0.0, 1.0, 0.0]]), np.ones((1, 1)), LABELS)
    assert np.isfinite(scores["log_loss"][0])
