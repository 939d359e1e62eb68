"""Pure metric maths on weighted rows: numbers of rows are summed first and divided once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def classification_scores(
    targets: NDArray[np.int64], probabilities: Values, weights: Values, labels: Sequence[str]
) -> dict[str, Values]:
    """Returns accuracy, F1, log loss, and precision and recall of each label.

    Args:
        targets: (rows,) indices of the right labels.
        probabilities: (rows, labels), each row adds up to 1.
        weights: (resamples, rows), how often each row is counted.
        labels: names, in the order of the indices; macro averages are over all of them.

    Returns:
        name -> (resamples,). A precision or recall without any row is 0, as in scikit-learn with `zero_division=0`.
    """
    predicted = probabilities.argmax(axis=1)
    of_label = np.eye(len(labels))
    right = weights * (predicted == targets)
    true_positives = right @ of_label[targets]
    actual, claimed = weights @ of_label[targets], weights @ of_label[predicted]
    precision, recall = _ratio(true_positives, claimed), _ratio(true_positives, actual)
    f1 = _ratio(2 * true_positives, actual + claimed)
    total = weights.sum(axis=1)
    own = probabilities[np.arange(len(targets)), targets]
    row_loss = -np.log(np.clip(own, np.finfo(np.float64).eps, 1.0))
    accuracy = right.sum(axis=1) / total
    scores = {
        "accuracy": accuracy,
        "f1_macro": f1.mean(axis=1),
        "f1_micro": accuracy,  # with one label a row, micro F1 and accuracy are the same number
        "log_loss": weights @ row_loss / total,
    }
    for position, label in enumerate(labels):
        scores[f"precision/{label}"] = precision[:, position]
        scores[f"recall/{label}"] = recall[:, position]
    return scores


def _ratio(numerator: Values, denominator: Values) -> Values:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
