"""Rows whose label is probably wrong, by confident learning (Northcutt et al., 2021)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finespun.data.writing import CsvWriter
from finespun.evaluation.analysis.calibration import one_label_chances
from finespun.tasks.base import Judgement

CLOSE = 1e-6
COLUMNS = ("row", "label", "predicted", "probability_of_label", "probability_of_predicted")


def suspected(targets: NDArray[np.int64], chances: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns positions of rows whose label is suspected, the least probable label first.

    A row counts as of a label when its probability is at least the mean of those rows that have the label; it is suspected when
    the most probable such label is not its own. The model must not have been trained on these rows.

    Args:
        targets: (rows,) indices of the labels given.
        chances: (rows, labels), each row adds up to 1.
    """
    rows, given = np.arange(len(targets)), np.bincount(targets, minlength=chances.shape[1])
    sums = np.zeros(chances.shape[1])
    np.add.at(sums, targets, chances[rows, targets])
    means = np.where(given > 0, sums / np.maximum(given, 1), np.inf)
    confident = chances >= means - CLOSE
    likely = np.where(confident, chances, -1.0).argmax(axis=1)
    nearly = chances.copy()
    nearly[rows, targets] += CLOSE  # a tie is not held against the label
    found = confident.any(axis=1) & (likely != targets) & (nearly.argmax(axis=1) != targets)
    own = chances[rows, targets]
    return np.asarray(rows[found][np.argsort(own[found], kind="stable")])


def write(judged: Judgement, path: Path) -> int:
    """Writes the rows that a person should look at as CSV, and returns how many; a task without one label a row has none."""
    known = one_label_chances(judged)
    shown: list[str] = [name for name in ("text", "text_pair", "image", "audio") if name in judged.table]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file)
        writer.row([*COLUMNS, *shown])
        if known is None:
            return 0
        targets, chances = known
        found = suspected(targets, chances)
        writer.rows(_line(judged, row, targets, chances, shown) for row in found.tolist())
    return len(found)


def _line(judged: Judgement, row: int, targets: Any, chances: Any, shown: list[str]) -> list[Any]:
    best = int(chances[row].argmax())
    rest = [_plain(judged.table[name][row]) for name in shown]
    number = _plain(judged.table["row"][row])
    return [number, judged.actual[row], judged.classes[best], round(float(chances[row, targets[row]]), 6),
            round(float(chances[row, best]), 6), *rest]  # fmt: skip


def _plain(value: Any) -> Any:
    return value.as_py() if hasattr(value, "as_py") else value


def read(path: Path) -> list[dict[str, str]]:
    """Reads what was written."""
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]
