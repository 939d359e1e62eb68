"""`finespun compare`: models side by side, row by row, from the predictions that each has kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from finespun.artifacts import Artifacts
from finespun.errors import DataError
from finespun.evaluation.analysis.comparison import mcnemar
from finespun.evaluation.analysis.resampling import interval, resamples
from finespun.report import words
from finespun.report.facts import Facts, SplitFacts, read

RESAMPLES, CONFIDENCE = 1000, 0.95
STAGES = {"validation": "evaluate", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One model beside the first: `difference` of the first score on the same rows (its interval), and McNemar's test."""

    name: str
    place: Path
    scores: dict[str, float]
    difference: dict[str, float] | None = None
    test: dict[str, float] | None = None


def compared(places: Sequence[Artifacts], split: str) -> list[Compared]:
    """Returns each model with its scores, and from the second on its difference to the first.

    Raises:
        MachineError: one of them was not evaluated on the split.
        DataError: they were evaluated on other rows.
    """
    facts = [read(place, stages=(STAGES[split],)) for place in places]
    first = facts[0].best
    found = []
    for place, each in zip(places, facts, strict=True):
        scores = {name: each.best.details["scores"][name]["value"] for name in each.best.details["shown"]}
        beside = {} if each is facts[0] else _beside(first, each, place.out)
        found.append(Compared(name=each.title, place=place.out, scores=scores, **beside))
    return found


def _beside(first: SplitFacts, other: Facts, place: Path) -> dict[str, Any]:
    ours, theirs = first.predictions, other.best.predictions
    if ours["row"].to_pylist() != theirs["row"].to_pylist() or _actual(ours) != _actual(theirs):
        raise DataError(f"{place}: was evaluated on other rows than the first; compare models of the same data and split")
    gains = _quality(theirs) - _quality(ours)
    drawn = np.concatenate([weights @ gains / weights.sum(axis=1) for weights in resamples(len(gains), RESAMPLES)])
    found: dict[str, Any] = {"difference": {"value": float(gains.mean()), **interval(drawn, CONFIDENCE)}}
    if not _is_numbers(ours):
        found["test"] = mcnemar(_quality(theirs) > 0.5, _quality(ours) > 0.5)
    return found


def _names(predictions: pa.Table) -> list[str]:
    return [name for name in predictions.column_names if f"predicted_{name}" in predictions.column_names]


def _is_numbers(predictions: pa.Table) -> bool:
    return "predicted" not in predictions.column_names


def _actual(predictions: pa.Table) -> list[Any]:
    names = [name for name in ("label", "labels", "tags") if name in predictions.column_names] or _names(predictions)
    return list(predictions.select(names).to_pylist())


def _quality(predictions: pa.Table) -> NDArray[np.float64]:
    """Returns what each row counts: 1 for a right prediction and 0 for a wrong one, or minus the absolute error."""
    if _is_numbers(predictions):
        errors = [
            np.abs(predictions[name].to_numpy() - predictions[f"predicted_{name}"].to_numpy()) for name in _names(predictions)
        ]
        return -np.asarray(np.mean(errors, axis=0), dtype=np.float64)
    actual = next(name for name in ("label", "labels", "tags") if name in predictions.column_names)
    pairs = zip(predictions[actual].to_pylist(), predictions["predicted"].to_pylist(), strict=True)
    return np.array([float(given == found) for given, found in pairs])


def show(found: Sequence[Compared]) -> None:
    """Prints a line a model."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", overflow="fold")
    for name in found[0].scores:
        table.add_column(words.score_name(name), justify="right")
    table.add_column("right rows, beside the first", justify="right")
    table.add_column("p (McNemar)", justify="right")
    for each in found:
        cells = [words.number(each.scores[name]) if name in each.scores else "" for name in found[0].scores]
        table.add_row(f"{escape(each.name)}\n[dim]{escape(str(each.place))}[/]", *cells, *_difference(each))
    Console().print(table)


def _difference(each: Compared) -> tuple[str, str]:
    if each.difference is None:
        return "", ""
    low, value, high = (100 * each.difference[name] for name in ("low", "value", "high"))
    if each.test is None:
        low, value, high = (each.difference[name] for name in ("low", "value", "high"))
        return f"{value:+.3g} ({low:+.3g} to {high:+.3g})", ""
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})", f"{each.test['p_value']:.3f}"
