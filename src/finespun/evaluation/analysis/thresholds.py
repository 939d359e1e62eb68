"""From which probability on a label is predicted as precisely as one wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

CHANCE = "probability/"


def reaching_precision(predictions: pa.Table, goal: float) -> list[dict[str, Any]]:
    """Returns for each label the lowest threshold at which the rows that reach it are so often of the label.

    `threshold`, `precision`, `recall` and `rows` (that reach it); those of a label that never gets there are None. A table
    without probabilities of labels gives nothing.
    """
    found = []
    for label, chances, there in _labels(predictions):
        order = np.argsort(-chances, kind="stable")
        hits = np.cumsum(there[order])
        ends = np.append(np.diff(chances[order]) != 0, True)  # rows of the same probability go together
        reached = np.flatnonzero(ends & (hits / np.arange(1, len(order) + 1) >= goal) & (hits > 0))
        at = float(chances[order][reached[-1]]) if len(reached) else None
        found.append({"label": label, "threshold": at, **_counted(chances, there, at)})
    return found


def at_thresholds(predictions: pa.Table, thresholds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns what thresholds that were chosen on other rows give on these: `precision`, `recall`, `rows` of each label."""
    chosen = {each["label"]: each["threshold"] for each in thresholds}
    return [
        {"label": label, "threshold": chosen[label], **_counted(chances, there, chosen[label])}
        for label, chances, there in _labels(predictions)
        if label in chosen
    ]


def _counted(chances: NDArray[np.float64], there: NDArray[np.bool_], threshold: float | None) -> dict[str, Any]:
    if threshold is None:
        return {"precision": None, "recall": None, "rows": None}
    taken = chances >= threshold
    right, rows, actual = int((taken & there).sum()), int(taken.sum()), int(there.sum())
    return {"precision": right / rows if rows else None, "recall": right / actual if actual else None, "rows": rows}


def _labels(predictions: pa.Table) -> list[tuple[str, NDArray[np.float64], NDArray[np.bool_]]]:
    """Returns each label with its probabilities, (rows,), and which rows have it."""
    names = [name.removeprefix(CHANCE) for name in predictions.column_names if name.startswith(CHANCE)]
    column = next((name for name in ("label", "labels") if name in predictions.column_names), None)
    if column is None:
        return []
    actual = predictions[column].to_pylist()
    return [
        (label, predictions[CHANCE + label].to_numpy(), np.array([label == each if column == "label" else label in each
                                                                  for each in actual], dtype=bool))
        for label in names
    ]  # fmt: skip
