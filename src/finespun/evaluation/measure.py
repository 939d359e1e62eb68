"""Measuring a model on one split: predictions, scores with bootstrap intervals, baselines on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finespun.config.sections import EvaluationConfig
from finespun.data.prepared import PreparedData
from finespun.evaluation.analysis.calibration import calibration, one_label_chances
from finespun.evaluation.analysis.comparison import differences, mcnemar
from finespun.evaluation.analysis.resampling import interval, resamples
from finespun.evaluation.analysis.slices import slices
from finespun.evaluation.analysis.thresholds import reaching_precision
from finespun.evaluation.analysis.worst import worst
from finespun.tasks.base import Judgement, Outputs, Task


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What `evaluate` and `test` report of a split."""

    scores: dict[str, float]
    intervals: dict[str, dict[str, float]]
    baselines: dict[str, dict[str, float]]
    predictions: pa.Table  # a line a unit, as the task shows it
    judgement: Judgement
    shown: tuple[str, ...]  # scores for a summary
    comparison: dict[str, Any] = field(default_factory=dict)  # with each baseline, on the same rows
    calibration: dict[str, Any] | None = None  # None where a task has no probability a row
    slices: list[dict[str, Any]] = field(default_factory=list)
    worst: list[dict[str, Any]] = field(default_factory=list)  # mistakes, with training rows like them
    thresholds: list[dict[str, Any]] = field(default_factory=list)  # of labels, for `evaluation.precision_goal`
    seconds: float = 0.0  # that predicting took


def headline(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the scores whose names say no label."""
    return {name: value for name, value in scores.items() if "/" not in name}


def measure(
    *, task: Task, prepared: PreparedData, split: str, outputs: Outputs, config: EvaluationConfig,
    others: Mapping[str, tuple[Task, Outputs]] = MappingProxyType({}),
) -> Measured:  # fmt: skip
    """Scores a model's outputs on a split.

    Args:
        task: says what a score is.
        prepared: the data; the training split is read for the baselines.
        split: val or test.
        outputs: one array a row, in the split's order.
        config: the section `evaluation`.
        others: outputs of other models for the same rows, each with the task that reads them: compared with as baselines are.
    """
    table, labels = prepared.open(split), prepared.labels
    simple = task.baselines(prepared.open("train"), table, labels) if config.baselines else {}
    judged = task.judge(table, outputs, labels)
    beside = {name: task.judge(table, found, labels) for name, found in simple.items()}
    beside |= {name: each.judge(table, found, labels) for name, (each, found) in others.items()}
    known = one_label_chances(judged)
    return Measured(
        scores=score(judged),
        intervals=bootstrap(judged, config),
        baselines={name: score(other) for name, other in beside.items()},
        comparison={name: _compared(judged, other, task.headline, config) for name, other in beside.items()},
        calibration=calibration(*known) if known else None,
        slices=slices(judged, table, by=task.headline[0], config=config),
        worst=worst(judged, task=task, prepared=prepared, split=split) if config.baselines else [],
        thresholds=reaching_precision(pa.table(judged.table), config.precision_goal) if config.precision_goal else [],
        predictions=pa.table(judged.table),
        judgement=judged,
        shown=task.headline,
    )


def score(judged: Judgement) -> dict[str, float]:
    """Returns each score over all units, each counted once."""
    return {name: float(values[0]) for name, values in judged.scores(np.ones((1, judged.units))).items()}


def bootstrap(judged: Judgement, config: EvaluationConfig) -> dict[str, dict[str, float]]:
    """Returns the percentile interval of each score from resampled units."""
    samples: dict[str, list[NDArray[np.float64]]] = {}
    for weights in resamples(judged.units, config.bootstrap_resamples):
        for name, values in judged.scores(weights).items():
            samples.setdefault(name, []).append(values)
    return {name: interval(np.concatenate(values), config.confidence) for name, values in samples.items()}


def _compared(judged: Judgement, other: Judgement, names: Sequence[str], config: EvaluationConfig) -> dict[str, Any]:
    """Returns the differences to a baseline on the same rows and, with one label a row, McNemar's test."""
    count, confidence = config.bootstrap_resamples, config.confidence
    found: dict[str, Any] = {"differences": differences(judged, other, names, count=count, confidence=confidence)}
    if one_label_chances(judged) is not None:
        right = [np.array([a == p for a, p in zip(each.actual, each.predicted, strict=True)]) for each in (judged, other)]
        found["mcnemar"] = mcnemar(*right)
    return found
