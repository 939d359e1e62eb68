"""Thresholds for a precision are those of scikit-learn's precision-recall curve."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import precision_recall_curve

from finespun.evaluation.analysis.thresholds import at_thresholds, reaching_precision

RANDOM = np.random.default_rng(0)
ACTUAL = RANDOM.integers(0, 2, 300)
CHANCES = np.round(np.clip(0.3 * ACTUAL + RANDOM.random(300) * 0.7, 0, 1), 2)  # with many equal ones


def table(actual: np.ndarray, chances: np.ndarray) -> pa.Table:
    return pa.table({
        "label": ["no" if not each else "yes" for each in actual], "probability/no": 1 - chances, "probability/yes": chances,
    })  # fmt: skip


@pytest.mark.parametrize("goal", [0.6, 0.8, 0.95, 1.0])
def test_the_lowest_threshold_that_reaches_the_precision(goal: float) -> None:
    precision, recall, thresholds = precision_recall_curve(ACTUAL, CHANCES)
    place = int(np.flatnonzero(precision[:-1] >= goal)[0])
    found = reaching_precision(table(ACTUAL, CHANCES), goal)[1]
    assert found["label"] == "yes"
    assert found["threshold"] == thresholds[place]
    assert (found["precision"], found["recall"]) == pytest.approx((precision[place], recall[place]))
    assert found["rows"] == (thresholds[place] <= CHANCES).sum()


def test_what_is_never_reached_is_none_and_thresholds_are_tried_on_other_rows() -> None:
    mixed = table(np.array([1, 0, 1, 0]), np.full(4, 0.5))
    assert reaching_precision(mixed, 0.9)[0] == {
        "label": "no", "threshold": None, "precision": None, "recall": None, "rows": None,
    }  # fmt: skip
    chosen = [{"label": "yes", "threshold": 0.7}, {"label": "gone", "threshold": 0.5}]
    [found] = at_thresholds(table(np.array([1, 0, 1]), np.array([0.8, 0.9, 0.1])), chosen)
    assert found == {"label": "yes", "threshold": 0.7, "precision": 0.5, "recall": 0.5, "rows": 2}
    [found] = at_thresholds(table(np.array([0]), np.array([0.1])), chosen)
    assert (found["precision"], found["recall"], found["rows"]) == (None, None, 0)


def test_several_labels_have_a_threshold_each_and_numbers_none() -> None:
    several = pa.table({"labels": [["a"], ["a", "b"], []], "probability/a": [0.9, 0.6, 0.7], "probability/b": [0.1, 0.8, 0.2]})
    found = {each["label"]: each["threshold"] for each in reaching_precision(several, 1.0)}
    assert found == {"a": 0.9, "b": 0.8}
    assert reaching_precision(pa.table({"price": [1.0], "predicted_price": [1.0]}), 0.9) == []
