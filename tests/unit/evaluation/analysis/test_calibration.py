"""Calibration as scikit-learn and torchmetrics measure it; the temperature of least log loss."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from finespun.evaluation.analysis.calibration import (
    brier_score,
    calibration,
    coverage,
    reaching,
    reliability,
)
from finespun.tasks.metrics.temperature import at_temperature, fit_temperature


def drawn(labels: int, rows: int = 2000, seed: int = 0, sharpness: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident probabilities and the labels that rows really have."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, labels))
    targets = np.array([random.choice(labels, p=row) for row in softmax(logits, axis=1)])
    return targets, softmax(sharpness * logits, axis=1)


@pytest.mark.parametrize("labels", [2, 5])
def test_the_expected_calibration_error_is_that_of_torchmetrics(labels: int) -> None:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    targets, chances = drawn(labels)
    found = calibration(targets, chances)
    for name, norm in (("ece", "l1"), ("mce", "max")):
        theirs = multiclass_calibration_error(
            torch.tensor(chances), torch.tensor(targets), num_classes=labels, n_bins=15, norm=norm
        )  # fmt: skip
        assert found[name] == pytest.approx(theirs.item(), abs=1e-6)
    assert sum(each["count"] for each in found["bins"]) == len(targets)


@pytest.mark.parametrize("labels", [2, 5])
def test_the_brier_score_is_that_of_scikit_learn(labels: int) -> None:
    targets, chances = drawn(labels)
    given = chances if labels > 2 else chances[:, 1]
    theirs = brier_score_loss(targets, given, **({"labels": range(labels)} if labels > 2 else {}))
    assert brier_score(targets, chances) == pytest.approx(theirs, abs=1e-6)


def test_bins_are_those_of_a_hand_made_example() -> None:
    found = reliability(np.array([0.05, 0.55, 0.56, 1.0]), np.array([0.0, 1.0, 0.0, 1.0]), bins=10)
    assert [(each["low"], each["count"], each["accuracy"]) for each in found] == [(0.0, 1, 0.0), (0.5, 2, 0.5), (0.9, 1, 1.0)]


@pytest.mark.parametrize("labels", [2, 4])
def test_the_temperature_is_that_of_least_log_loss(labels: int) -> None:
    targets, chances = drawn(labels, sharpness=3.0)
    found = fit_temperature(targets, chances)
    assert found == pytest.approx(3.0, rel=0.15), "the temperature undoes the sharpness that was put in"
    losses = [log_loss(targets, at_temperature(chances, found * factor)) for factor in (0.98, 1.0, 1.02)]
    assert losses[1] == min(losses)
    assert calibration(targets, at_temperature(chances, found))["ece"] < calibration(targets, chances)["ece"] / 3


def test_the_temperature_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    features = random.normal(size=(600, 3))
    targets = (features[:, 0] + random.normal(size=600) > 0).astype(int) + (features[:, 1] > 0.5)
    fitted = LogisticRegression(C=1e4).fit(features[:100], targets[:100])
    theirs = CalibratedClassifierCV(FrozenEstimator(fitted), method="temperature").fit(features, targets)
    chances = fitted.predict_proba(features)
    ours = at_temperature(chances, fit_temperature(targets, chances))
    np.testing.assert_allclose(ours, theirs.predict_proba(features), atol=1e-4)


def test_coverage_counts_the_surest_rows_first() -> None:
    curve = coverage(np.array([0.6, 0.9, 0.8, 0.7]), np.array([0.0, 1.0, 1.0, 0.0]))
    assert [(point["coverage"], point["accuracy"]) for point in curve] == [(0.25, 1), (0.5, 1), (0.75, 2 / 3), (1.0, 0.5)]
    best = reaching(curve, 0.95)
    assert best is not None
    assert (best["coverage"], best["threshold"]) == (0.5, 0.8)
    tied = coverage(np.full(4, 0.8), np.array([1.0, 1.0, 0.0, 0.0]))
    assert [(point["coverage"], point["accuracy"]) for point in tied] == [(1.0, 0.5)], "rows that are equally sure go together"
    assert reaching(coverage(np.array([0.6]), np.array([0.0])), 0.95) is None
