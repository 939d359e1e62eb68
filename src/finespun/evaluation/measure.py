"""Measuring a model on one split: predictions, scores with bootstrap intervals, baselines on the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finespun.config.sections import EvaluationConfig
from finespun.data.prepared import PreparedData
from finespun.tasks.base import Task

CHUNK_CELLS = 5_000_000  # weights held at once while resampling: 40 MB


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What `evaluate` and `test` report of a split."""

    scores: dict[str, float]
    intervals: dict[str, dict[str, float]]
    baselines: dict[str, dict[str, float]]
    predictions: pa.Table  # row, text, label, predicted, probability of each label
    actual: list[str]
    predicted: list[str]

    @property
    def headline(self) -> dict[str, float]:
        """The scores that are about all labels."""
        return headline(self.scores)


def headline(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the scores whose names say no label."""
    return {name: value for name, value in scores.items() if "/" not in name}


def measure(
    *, task: Task, prepared: PreparedData, split: str, outputs: NDArray[np.float64], config: EvaluationConfig
) -> Measured:
    """Scores a model's outputs on a split.

    Args:
        task: says what a score is.
        prepared: the data; the training split is read for the baselines.
        split: val or test.
        outputs: (rows, labels), in the split's order.
        config: the section `evaluation`.
    """
    table, labels = prepared.open(split), prepared.labels
    targets = table["target"].to_numpy()
    simple = task.baselines(prepared.open("train"), table, labels) if config.baselines else {}
    people = task.predictions(outputs, labels)
    actual = [labels[target] for target in targets]
    columns = {"row": table["row"], "text": table["text"], "label": actual, "predicted": people["label"]}
    columns |= {f"probability/{label}": outputs[:, position] for position, label in enumerate(labels)}
    return Measured(
        scores=score(task, targets, outputs, labels),
        intervals=bootstrap(task, targets, outputs, labels, config),
        baselines={name: score(task, targets, found, labels) for name, found in simple.items()},
        predictions=pa.table(columns),
        actual=actual,
        predicted=people["label"],
    )


def score(task: Task, targets: NDArray[np.int64], outputs: NDArray[np.float64], labels: list[str]) -> dict[str, float]:
    """Returns each score over all rows, each counted once."""
    once = np.ones((1, len(targets)))
    return {name: float(values[0]) for name, values in task.scores(targets, outputs, once, labels).items()}


def bootstrap(
    task: Task, targets: NDArray[np.int64], outputs: NDArray[np.float64], labels: list[str], config: EvaluationConfig
) -> dict[str, dict[str, float]]:
    """Returns percentile intervals of each score from resampled rows (Efron and Tibshirani, 1993, chapter 13)."""
    samples: dict[str, list[NDArray[np.float64]]] = {}
    for weights in _resamples(len(targets), config.bootstrap_resamples):
        for name, values in task.scores(targets, outputs, weights, labels).items():
            samples.setdefault(name, []).append(values)
    tail = (1 - config.confidence) / 2
    bounds = {name: np.quantile(np.concatenate(values), (tail, 1 - tail)) for name, values in samples.items()}
    return {name: {"low": float(low), "high": float(high)} for name, (low, high) in bounds.items()}


def _resamples(rows: int, resamples: int) -> Iterator[NDArray[np.float64]]:
    random = np.random.Generator(np.random.Philox(key=0))
    at_once = max(1, CHUNK_CELLS // rows)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = random.integers(0, rows, size=(count, rows)) + np.arange(count)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)
