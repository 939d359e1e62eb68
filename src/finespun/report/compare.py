"""`finespun compare`: models side by side, row by row, from the predictions that each has kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
from finespun.evaluation.analysis.kept_predictions import compared, on_the_same_rows
from finespun.report import words
from finespun.report.facts import SplitFacts, read

RESAMPLES, CONFIDENCE = 1000, 0.95
STAGES = {"validation": "evaluate", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One model beside the first: differences of scores on the same rows with intervals, and McNemar's test of right rows."""

    name: str
    place: Path
    scores: dict[str, float]
    differences: dict[str, dict[str, float]] = field(default_factory=dict)
    test: dict[str, float] | None = None


def side_by_side(places: Sequence[Artifacts], split: str) -> list[Compared]:
    """Returns each model with its scores, and from the second on its differences to the first.

    Raises:
        MachineError: one of them was not evaluated on the split.
        DataError: they were evaluated on other rows.
    """
    facts = [read(place, stages=(STAGES[split],)) for place in places]
    first, found = facts[0].best, []
    for place, each in zip(places, facts, strict=True):
        scores = {name: each.best.details["scores"][name]["value"] for name in each.best.details["shown"]}
        differences, test = ({}, None) if each is facts[0] else _beside(first, each.best, place.out)
        found.append(Compared(name=each.title, place=place.out, scores=scores, differences=differences, test=test))
    return found


def labels_of(*splits: SplitFacts) -> list[str]:
    """Returns all labels of some models, the first's first."""
    return list(dict.fromkeys(label for split in splits for label in split.details.get("labels", ())))


def _beside(
    first: SplitFacts, other: SplitFacts, place: Path
) -> tuple[dict[str, dict[str, float]], dict[str, float] | None]:  # fmt: skip
    try:
        theirs, ours = on_the_same_rows(other.predictions, first.predictions)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    found = compared(theirs, ours, labels_of(first, other), count=RESAMPLES, confidence=CONFIDENCE)
    one, two = _right(theirs), _right(ours)
    return found, None if one is None or two is None else mcnemar(one, two)


def _right(predictions: pa.Table) -> NDArray[np.bool_] | None:
    """Returns which rows are predicted exactly; None where predictions are not right or wrong."""
    names = [name for name in ("label", "labels", "tags") if name in predictions.column_names]
    if not names or "predicted" not in predictions.column_names:
        return None
    pairs = zip(predictions[names[0]].to_pylist(), predictions["predicted"].to_pylist(), strict=True)
    return np.array([given == found for given, found in pairs])


def show(found: Sequence[Compared]) -> None:
    """Prints a line a model."""
    first = next(iter(found[0].scores))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model")
    for name in found[0].scores:
        table.add_column(words.score_name(name), justify="right")
    table.add_column(f"{words.score_name(first)}, beside the first", justify="right")
    table.add_column("p (McNemar)", justify="right")
    console = Console()
    for number, each in enumerate(found, 1):
        console.print(f"  {number}  {escape(each.name)}  [dim]{escape(_short(each.place))}[/]", highlight=False, soft_wrap=True)
        cells = [words.number(each.scores[name]) if name in each.scores else "" for name in found[0].scores]
        name = first if first in each.differences else next(iter(each.differences), "")
        gap = words.gap(name, each.differences[name]) if name else ""
        chance = f"{each.test['p_value']:.3f}" if each.test else ""
        table.add_row(str(number), *cells, gap, chance)
    console.print(table)


def _short(place: Path) -> str:
    return str(place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place)
