"""Tables of predictions, scored again: two models on the rows that both predicted, whenever and wherever that was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finespun.errors import DataError
from finespun.evaluation.analysis.comparison import differences
from finespun.tasks.answers.several_labels import NONE
from finespun.tasks.answers.tag_schemes import entities
from finespun.tasks.base import Judgement
from finespun.tasks.metrics.detection import Boxes, DetectionScores
from finespun.tasks.metrics.scores import classification_scores, multi_label_scores, regression_scores

Values = NDArray[np.float64]
Scores = Callable[[Values], dict[str, Values]]  # of weights (resamples, rows)
READ = ("text", "text_pair", "image", "words")  # what makes a row the same row, whatever its number
ANSWERS = ("label", "labels", "tags", "target", "boxes", "mask")
CHANCE = "probability/"
EDGES = ("x_min", "y_min", "x_max", "y_max")
FEWEST = 30  # rows on which two models are compared


def numbers_of(predictions: pa.Table) -> list[str]:
    """Returns the names of predicted numbers; none where a task predicts something else."""
    return [name for name in predictions.column_names if f"predicted_{name}" in predictions.column_names and name != "mask"]


def on_the_same_rows(ours: pa.Table, theirs: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Returns the rows of two tables that say the same and have the same answer, in the order of the first.

    Raises:
        DataError: there are fewer than `FEWEST`, unless that is all of both.
    """
    places: dict[Any, int] = {key: place for place, key in enumerate(_keys(theirs, ours))}
    pairs = [(place, places[key]) for place, key in enumerate(_keys(ours, theirs)) if key in places]
    if len(pairs) < min(FEWEST, max(ours.num_rows, theirs.num_rows)):
        raise DataError(
            f"the two models were tested on {len(pairs)} rows in common, of {ours.num_rows:,} and {theirs.num_rows:,}: too few"
            f" to compare them ({FEWEST} are needed); test both on the same data"
        )
    mine, other = zip(*pairs, strict=True)
    return ours.take(list(mine)), theirs.take(list(other))


def _keys(table: pa.Table, other: pa.Table) -> Iterator[Any]:
    """Yields what a row says and its answer, and the how-manieth such row it is."""
    both = [name for name in table.column_names if name in other.column_names]
    read = [name for name in both if name in READ] or [name for name in both if name == "row"]
    names = [*read, *(name for name in both if name in ANSWERS), *numbers_of(table)]
    met: Counter[str] = Counter()
    for row in table.select([name for name in names if name in both]).to_pylist():
        key = repr(row)
        yield key, met[key]
        met[key] += 1


def scores_of(predictions: pa.Table, labels: Sequence[str]) -> Scores:
    """Returns the scores of a table of predictions for weights of its rows, named and computed as those of its task.

    Of written texts only ROUGE-L is in the table; of masks, the mean over images of what each has; of boxes, those that were
    sure enough to be predicted.

    Raises:
        DataError: it is no table of predictions.
    """
    names = {*predictions.column_names}
    for needed, make in (
        ({"label", "predicted"}, _one_label), ({"labels", "predicted"}, _several), ({"tags", "predicted"}, _tags),
        ({"boxes", "detections"}, _boxes),
    ):  # fmt: skip
        if needed <= names:
            return make(predictions, labels)
    if numbers := numbers_of(predictions):
        return _numbers(predictions, numbers)
    if means := [name for name in ("rougeL", "mean_iou", "pixel_accuracy", "mean_accuracy") if name in names]:
        return partial(_means, {name: predictions[name].to_numpy() for name in means})
    raise DataError(f"predictions with the columns {', '.join(sorted(names))} cannot be compared row by row")


def _chances(predictions: pa.Table, labels: Sequence[str]) -> Values:
    """Returns (rows, labels) probabilities; 0 for a label that the model did not know."""
    none = np.zeros(predictions.num_rows)
    known = predictions.column_names
    return np.stack(
        [predictions[CHANCE + each].to_numpy() if CHANCE + each in known else none for each in labels], axis=1
    )  # fmt: skip


def _one_label(predictions: pa.Table, labels: Sequence[str]) -> Scores:
    index = {label: place for place, label in enumerate(labels)}
    targets = np.array([index[label] for label in predictions["label"].to_pylist()])
    return partial(classification_scores, targets, _chances(predictions, labels), labels=labels)


def _several(predictions: pa.Table, labels: Sequence[str]) -> Scores:
    """Sets as they were predicted, whatever each label's threshold was; rankings and losses of the probabilities."""
    actual, predicted = (
        np.array([[float(label in row) for label in labels] for row in predictions[name].to_pylist()])
        for name in ("labels", "predicted")
    )
    half, chances = np.full(len(labels), 0.5), _chances(predictions, labels)

    def scores(weights: Values) -> dict[str, Values]:
        ranked, sets = (
            multi_label_scores(actual, each, weights, thresholds=half, labels=labels) for each in (chances, predicted)
        )
        return sets | {name: ranked[name] for name in ("average_precision", "log_loss")}

    return scores


def _numbers(predictions: pa.Table, names: Sequence[str]) -> Scores:
    targets, found = (
        np.stack([predictions[f"{prefix}{name}"].to_numpy() for name in names], axis=1) for prefix in ("", "predicted_")
    )
    return partial(regression_scores, targets, found, labels=names)


def _tags(predictions: pa.Table, _: Sequence[str]) -> Scores:
    """F1 over entities, and the share of words whose tag is right; of plain tags the latter alone."""
    counts = []
    for row in predictions.select(["tags", "predicted"]).to_pylist():
        actual, claimed = ({*entities(row[name])} for name in ("tags", "predicted"))
        known = [(tag, other) for tag, other in zip(row["tags"], row["predicted"], strict=True) if tag != NONE]
        counts.append(
            (len(actual & claimed), len(actual) + len(claimed), sum(tag == other for tag, other in known), len(known))
        )
    table = np.array(counts, dtype=np.float64)

    def scores(weights: Values) -> dict[str, Values]:
        both, either, right, words = (weights @ table).T
        accuracy = {"accuracy": right / np.maximum(words, 1)}
        return accuracy | ({"f1": 2 * both / np.maximum(either, 1)} if table[:, 1].any() else {})

    return scores


def _boxes(predictions: pa.Table, labels: Sequence[str]) -> Scores:
    index = {label: place for place, label in enumerate(labels)}
    actual, found = ([_placed(each, index) for each in predictions[name].to_pylist()] for name in ("boxes", "detections"))
    return DetectionScores(actual, found, labels=labels, sizes=("all",))


def _placed(written: str, index: dict[str, int]) -> Boxes:
    told = [each for each in json.loads(written) if each["label"] in index]
    places = np.array([[each[edge] for edge in EDGES] for each in told], dtype=np.float64).reshape(-1, 4)
    return Boxes(places, np.array([index[each["label"]] for each in told], dtype=np.int64),
                 np.array([each.get("score", 0.0) for each in told], dtype=np.float64))  # fmt: skip


def _means(columns: dict[str, Values], weights: Values) -> dict[str, Values]:
    return {name: weights @ np.nan_to_num(values) / weights.sum(axis=1) for name, values in columns.items()}


def compared(
    ours: pa.Table, theirs: pa.Table, labels: Sequence[str], *, count: int, confidence: float
) -> dict[str, dict[str, float]]:
    """Returns each score of both models, `ours` and `theirs`, and their difference's `value`, `low` and `high`.

    The tables must hold the same rows; both are scored on the same resamples (a paired bootstrap).

    Raises:
        DataError: they are no tables of predictions.
    """
    mine, other = (
        Judgement(units=table.num_rows, scores=scores_of(table, labels), table={}, actual=(), predicted=())
        for table in (ours, theirs)
    )
    whole = [each.scores(np.ones((1, each.units))) for each in (mine, other)]
    names = [name for name in whole[0] if name in whole[1] and "/" not in name]
    found = differences(mine, other, names, count=count, confidence=confidence)
    return {name: {"ours": float(whole[0][name][0]), "theirs": float(whole[1][name][0]), **found[name]} for name in names}
