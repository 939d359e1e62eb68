"""Scores of parts of a split: by class, by length, by columns that `data.slices` names; the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finespun.config.sections import EvaluationConfig
from finespun.data.encode import SLICE
from finespun.evaluation.analysis.resampling import interval, resamples
from finespun.tasks.base import Judgement

RESAMPLES = 200  # at most: slices are many, and their intervals wide
FEWEST, CELLS = 50, 20_000_000  # resamples where units are many: their intervals are narrow anyway
LARGEST = 20  # values of one column, the most frequent
SMALLEST = 5  # units of a slice: of fewer nothing can be said
QUARTERS = ("shortest quarter", "second quarter", "third quarter", "longest quarter")
Names = NDArray[np.object_]  # (units,), the slice of each


def slices(judged: Judgement, rows: pa.Table, *, by: str, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Returns what each slice holds and how good the predictions are in it.

    Args:
        judged: a split as the task judged it.
        rows: its prepared data.
        by: the score that is reported.
        config: the section `evaluation`.
    """
    masks = [(kind, name, mask) for kind, names in _kinds(judged, rows) for name, mask in _masks(names)]
    if not masks:
        return []
    count = min(RESAMPLES, config.bootstrap_resamples, max(FEWEST, CELLS // judged.units))
    samples: list[list[NDArray[np.float64]]] = [[] for _ in masks]
    for weights in resamples(judged.units, count):
        for kept, (_, _, mask) in zip(samples, masks, strict=True):
            inside = weights * mask
            kept.append(judged.scores(inside[inside.sum(axis=1) > 0])[by])
    return [
        {
            "by": kind, "slice": name, "units": int(mask.sum()), "score": by,
            "value": float(judged.scores(mask[None])[by][0]), **interval(np.concatenate(kept), config.confidence),
        }
        for kept, (kind, name, mask) in zip(samples, masks, strict=True)
    ]  # fmt: skip


def _kinds(judged: Judgement, rows: pa.Table) -> Iterator[tuple[str, Names]]:
    if judged.classes and len(judged.actual) == judged.units and "label" in judged.table:
        yield "class", np.array(judged.actual, dtype=object)
    units = np.asarray(judged.table["row"]) if "row" in judged.table else None
    if units is None or len(units) != judged.units:
        return
    if "popularity" in judged.table:
        yield "popularity", np.array(judged.table["popularity"], dtype=object)
    numbers = rows["row"].to_numpy()
    if "length" in rows.column_names:
        yield from _by_length(units, numbers, rows["length"].to_numpy())
    for name in rows.column_names:
        if name.startswith(SLICE):
            values = dict(zip(numbers.tolist(), rows[name].to_pylist(), strict=True))
            yield name.removeprefix(SLICE), np.array([values[unit] or "(empty)" for unit in units.tolist()], dtype=object)


def _by_length(units: Any, numbers: Any, lengths: Any) -> Iterator[tuple[str, Names]]:
    """Yields quarters by length, where lengths differ; a row that became several has the sum of theirs."""
    total: Counter[int] = Counter()
    for number, length in zip(numbers.tolist(), lengths.tolist(), strict=True):
        total[number] += length
    found = np.array([total[unit] for unit in units.tolist()])
    edges = np.quantile(found, (0.25, 0.5, 0.75))
    if len({*edges.tolist()}) == 3:
        yield "length", np.array(QUARTERS, dtype=object)[np.searchsorted(edges, found, side="left")]


def _masks(names: Names) -> Iterator[tuple[str, NDArray[np.float64]]]:
    for name, count in Counter(names.tolist()).most_common(LARGEST):
        if SMALLEST <= count < len(names):
            yield str(name), (names == name).astype(np.float64)


def worst_first(found: Sequence[dict[str, Any]], *, smaller_is_better: bool) -> list[dict[str, Any]]:
    """Returns slices in the order in which they ask for attention."""
    return sorted(found, key=lambda each: each["value"], reverse=smaller_is_better)
