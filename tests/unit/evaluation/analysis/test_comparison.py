"""Two models on the same rows: differences with intervals, McNemar's test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from finespun.evaluation.analysis.comparison import differences, mcnemar
from finespun.tasks.base import Judgement


def judgement(right: np.ndarray) -> Judgement:
    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"accuracy": weights @ right / weights.sum(axis=1)}

    return Judgement(units=len(right), scores=scores, table={}, actual=(), predicted=())


def test_the_interval_of_a_difference_is_that_of_a_paired_bootstrap() -> None:
    random = np.random.default_rng(0)
    ours, theirs = (random.random(400) < share for share in (0.8, 0.7))
    found = differences(judgement(ours), judgement(theirs), ["accuracy"], count=4000, confidence=0.95)["accuracy"]
    change = ours.astype(float) - theirs
    theirs_interval = scipy_bootstrap((change,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert found["value"] == pytest.approx(change.mean())
    assert (found["low"], found["high"]) == pytest.approx((theirs_interval.low, theirs_interval.high), abs=0.005)


def test_a_model_is_no_better_than_itself() -> None:
    same = judgement(np.array([True, False, True]))
    found = differences(same, same, ["accuracy"], count=100, confidence=0.9)
    assert found == {"accuracy": {"value": 0, "low": 0, "high": 0}}


def test_mcnemar_is_an_exact_binomial_test() -> None:
    ours = np.array([True] * 12 + [False] * 3 + [True] * 10)
    theirs = np.array([False] * 12 + [True] * 3 + [True] * 10)
    found = mcnemar(ours, theirs)
    assert (found["only_first"], found["only_second"]) == (12, 3)
    assert found["p_value"] == pytest.approx(0.03515625)  # 2 * P(X >= 12), X of 15 fair coins
    assert mcnemar(ours, ours)["p_value"] == 1.0
