"""Calibration: whether a probability is a frequency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finespun.tasks.base import Judgement

BINS = 15
POINTS = 101  # of the curve of accuracy against coverage
Chances = NDArray[np.float64]
Labels = NDArray[np.int64]


def one_label_chances(judged: Judgement) -> tuple[Labels, Chances] | None:
    """Returns (rows,) right labels and (rows, labels) probabilities of a task with one label a row; None for other tasks."""
    columns = [f"probability/{label}" for label in judged.classes]
    if not columns or "label" not in judged.table or not all(name in judged.table for name in columns):
        return None
    index = {label: position for position, label in enumerate(judged.classes)}
    return np.array([index[label] for label in judged.actual]), np.stack([judged.table[name] for name in columns], axis=1)


def calibration(targets: Labels, chances: Chances) -> dict[str, Any]:
    """Returns the reliability diagram of the predicted label, its summaries, and accuracy against coverage.

    Args:
        targets: (rows,) indices of the right labels.
        chances: (rows, labels), each row adds up to 1.
    """
    confidence, correct = chances.max(axis=1), (chances.argmax(axis=1) == targets).astype(np.float64)
    bins = reliability(confidence, correct)
    gaps = [(each["count"] / len(targets), abs(each["accuracy"] - each["confidence"])) for each in bins]
    return {
        "bins": bins,
        "ece": float(sum(share * gap for share, gap in gaps)),
        "mce": float(max(gap for _, gap in gaps)),
        "brier": brier_score(targets, chances),
        "coverage": coverage(confidence, correct),
    }


def reliability(confidence: Chances, correct: Chances, *, bins: int = BINS) -> list[dict[str, float]]:
    """Returns the bins of equal width that hold rows: bounds, rows, mean confidence and share of correct predictions.

    Their weighted gaps add up to the expected calibration error (Guo et al., 2017).
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(confidence, edges[1:-1], right=False), 0, bins - 1)
    found = []
    for number in np.unique(place):
        inside = place == number
        found.append({
            "low": float(edges[number]), "high": float(edges[number + 1]), "count": int(inside.sum()),
            "confidence": float(confidence[inside].mean()), "accuracy": float(correct[inside].mean()),
        })  # fmt: skip
    return found


def brier_score(targets: Labels, chances: Chances) -> float:
    """Returns the mean squared distance of probabilities from the right answer: 0 to 2, or 0 to 1 for two labels (their half).

    That is scikit-learn's `brier_score_loss`, with its `scale_by_half="auto"`.
    """
    distance = ((chances - np.eye(chances.shape[1])[targets]) ** 2).sum(axis=1).mean()
    return float(distance / 2 if chances.shape[1] == 2 else distance)


def coverage(confidence: Chances, correct: Chances) -> list[dict[str, float]]:
    """Returns how good the predictions are when only the surest are taken: share of rows, from which confidence, accuracy.

    Rows of the same confidence are taken together.
    """
    order = np.argsort(-confidence, kind="stable")
    accuracy = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    ends = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    last = ends[np.unique(np.linspace(0, len(ends), POINTS).round().astype(int)[1:].clip(1)) - 1]
    return [
        {"coverage": float((at + 1) / len(order)), "threshold": float(confidence[order[at]]), "accuracy": float(accuracy[at])}
        for at in last
    ]


def reaching(curve: list[Mapping[str, float]], goal: float) -> Mapping[str, float] | None:
    """Returns the point of largest coverage of which the accuracy reaches a goal; None if there is none."""
    return next((point for point in reversed(curve) if point["accuracy"] >= goal), None)
