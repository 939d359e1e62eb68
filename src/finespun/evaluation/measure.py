"""Measuring a model on one split: predictions, scores with bootstrap intervals, baselines on the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finespun.config.sections import EvaluationConfig
from finespun.data.prepared import PreparedData
from finespun.tasks.base import Judgement, Outputs, Task

CHUNK_CELLS = 5_000_000  # weights held at once while resampling: 40 MB


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What `evaluate` and `test` report of a split."""

    scores: dict[str, float]
    intervals: dict[str, dict[str, float]]
    baselines: dict[str, dict[str, float]]
    predictions: pa.Table  # a line a unit, as the task shows it
    judgement: Judgement
    shown: tuple[str, ...]  # scores for a summary


def headline(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the scores whose names say no label."""
    return {name: value for name, value in scores.items() if "/" not in name}


def measure(*, task: Task, prepared: PreparedData, split: str, outputs: Outputs, config: EvaluationConfig) -> Measured:
    """Scores a model's outputs on a split.

    Args:
        task: says what a score is.
        prepared: the data; the training split is read for the baselines.
        split: val or test.
        outputs: one array a row, in the split's order.
        config: the section `evaluation`.
    """
    table, labels = prepared.open(split), prepared.labels
    simple = task.baselines(prepared.open("train"), table, labels) if config.baselines else {}
    judged = task.judge(table, outputs, labels)
    return Measured(
        scores=score(judged),
        intervals=bootstrap(judged, config),
        baselines={name: score(task.judge(table, found, labels)) for name, found in simple.items()},
        predictions=pa.table(judged.table),
        judgement=judged,
        shown=task.headline,
    )


def score(judged: Judgement) -> dict[str, float]:
    """Returns each score over all units, each counted once."""
    return {name: float(values[0]) for name, values in judged.scores(np.ones((1, judged.units))).items()}


def bootstrap(judged: Judgement, config: EvaluationConfig) -> dict[str, dict[str, float]]:
    """Returns percentile intervals of each score from resampled units (Efron and Tibshirani, 1993, chapter 13)."""
    samples: dict[str, list[NDArray[np.float64]]] = {}
    for weights in _resamples(judged.units, config.bootstrap_resamples):
        for name, values in judged.scores(weights).items():
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
