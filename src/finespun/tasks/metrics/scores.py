"""Pure metric maths on weighted rows: numbers of rows are summed first and divided once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def classification_scores(
    targets: NDArray[np.int64], probabilities: Values, weights: Values, labels: Sequence[str]
) -> dict[str, Values]:
    """Returns accuracy, F1, log loss, and precision and recall of each label.

    Args:
        targets: (rows,) indices of the right labels.
        probabilities: (rows, labels), each row adds up to 1.
        weights: (resamples, rows), how often each row is counted.
        labels: names, in the order of the indices.

    Returns:
        name -> (resamples,), as scikit-learn's functions with `zero_division=0` give them: a precision or recall without any
        row is 0, and the macro average leaves out a label that has no row and is never predicted.
    """
    predicted = probabilities.argmax(axis=1)
    of_label = np.eye(len(labels))
    right = weights * (predicted == targets)
    true_positives = right @ of_label[targets]
    actual, claimed = weights @ of_label[targets], weights @ of_label[predicted]
    rates = _rates(true_positives, claimed, actual)
    f1 = rates.pop("f1")
    total = weights.sum(axis=1)
    own = probabilities[np.arange(len(targets)), targets]
    row_loss = -np.log(np.clip(own, np.finfo(np.float64).eps, 1.0))
    accuracy = right.sum(axis=1) / total
    return {
        "accuracy": accuracy,
        "f1_macro": _macro(f1, claimed, actual),
        "f1_micro": accuracy,  # with one label a row, micro F1 and accuracy are the same number
        "log_loss": weights @ row_loss / total,
        **_by_label(rates, labels),
    }


def _ratio(numerator: Values, denominator: Values) -> Values:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _rates(found: Values, claimed: Values, actual: Values) -> dict[str, Values]:
    return {"precision": _ratio(found, claimed), "recall": _ratio(found, actual), "f1": _ratio(2 * found, claimed + actual)}


def _macro(rates: Values, claimed: Values, actual: Values) -> Values:
    """Returns the mean over the labels, (resamples,), that some row has or is given, as scikit-learn and seqeval define it."""
    met = (claimed + actual > 0).astype(np.float64)
    return _ratio((rates * met).sum(axis=1), met.sum(axis=1))


def _by_label(scores: Mapping[str, Values], labels: Sequence[str]) -> dict[str, Values]:
    """Returns name/label -> (resamples,) of scores (resamples, labels)."""
    return {f"{name}/{label}": values[:, place] for place, label in enumerate(labels) for name, values in scores.items()}


def regression_scores(targets: Values, numbers: Values, weights: Values, *, labels: Sequence[str]) -> dict[str, Values]:
    """Returns Pearson's and Spearman's correlation, R², RMSE, MSE and MAE: means over targets, and of each if several.

    Args:
        targets: (rows, targets), the right numbers.
        numbers: (rows, targets), the predicted ones.
        weights: (resamples, rows), how often each row is counted.
        labels: names of the targets.

    Returns:
        name -> (resamples,), as scikit-learn and scipy define them on the resampled rows: Spearman's ranks are those among
        the rows of a sample. A correlation with a constant is 0 (scipy: NaN); the R² of constant targets is 0, or 1 where all
        are met.
    """
    found = []
    for target, number in zip(targets.T, numbers.T, strict=True):
        total = weights.sum(axis=1)
        error = number - target
        mse = weights @ error**2 / total
        aim, guess = _centred(target, weights), _centred(number, weights)
        variance = _covariance(aim, aim, weights)
        rank, guessed_rank = (_centred(_ranks(each, weights), weights) for each in (target, number))
        found.append({
            "pearson": _correlation(aim, guess, weights),
            "spearman": _correlation(rank, guessed_rank, weights),
            "rmse": np.sqrt(mse),
            "r2": np.where(variance > 0, 1 - _ratio(mse, variance), mse == 0),
            "mse": mse,
            "mae": weights @ np.abs(error) / total,
        })  # fmt: skip
    each = {name: np.stack([scores[name] for scores in found], axis=1) for name in found[0]}
    return {name: values.mean(axis=1) for name, values in each.items()} | (_by_label(each, labels) if len(labels) > 1 else {})


def _centred(numbers: Values, weights: Values) -> Values:
    """Returns differences from the mean of each sample, (resamples, rows); exactly 0 where a sample has one number alone."""
    numbers = np.broadcast_to(numbers, weights.shape)
    counted = weights > 0
    most = np.max(numbers, axis=1, where=counted, initial=-np.inf, keepdims=True)
    least = np.min(numbers, axis=1, where=counted, initial=np.inf, keepdims=True)
    mean = (weights * numbers).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    return np.where(counted & (most > least), numbers - mean, 0.0)


def _covariance(one: Values, other: Values, weights: Values) -> Values:
    """Returns (resamples,) of centred numbers (resamples, rows)."""
    return np.asarray(np.einsum("ij,ij,ij->i", weights, one, other) / weights.sum(axis=1))


def _correlation(one: Values, other: Values, weights: Values) -> Values:
    spread = np.sqrt(_covariance(one, one, weights)) * np.sqrt(_covariance(other, other, weights))
    return np.clip(_ratio(_covariance(one, other, weights), spread), -1.0, 1.0)


def _ranks(numbers: Values, weights: Values) -> Values:
    """Returns ranks among the rows of each sample, (resamples, rows): equal numbers share the mean of theirs."""
    order = np.argsort(numbers, kind="stable")
    begins = np.flatnonzero(np.append(True, np.diff(numbers[order]) != 0))  # a group of equal numbers each
    counts = np.add.reduceat(weights[:, order], begins, axis=1)
    ranks = np.cumsum(counts, axis=1) - (counts - 1) / 2
    group = np.empty(len(numbers), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(numbers))))
    return ranks[:, group]


def multi_label_scores(
    targets: Values, probabilities: Values, weights: Values, *, thresholds: Values, labels: Sequence[str]
) -> dict[str, Values]:
    """Returns F1 (macro, micro, of samples), mean average precision, exact match, log loss, and each label's precision, recall.

    Args:
        targets: (rows, labels) of 0 and 1.
        probabilities: (rows, labels), each on its own between 0 and 1.
        weights: (resamples, rows), how often each row is counted.
        thresholds: (labels,), from which probability on a label is given.
        labels: names.

    Returns:
        name -> (resamples,), with 0 for what would be divided by no row, as in scikit-learn with `zero_division=0`; its macro
        averages of sets of labels count every label.
    """
    predicted = (probabilities >= thresholds).astype(np.float64)
    hits = predicted * targets
    true, claimed, actual = weights @ hits, weights @ predicted, weights @ targets
    rates = _rates(true, claimed, actual)
    f1 = rates.pop("f1")
    total = weights.sum(axis=1)
    sizes = predicted.sum(axis=1) + targets.sum(axis=1)
    tiny = np.finfo(np.float64).eps
    clipped = np.clip(probabilities, tiny, 1 - tiny)
    row_loss = -(targets * np.log(clipped) + (1 - targets) * np.log(1 - clipped)).mean(axis=1)
    return {
        "f1_macro": f1.mean(axis=1),
        "f1_micro": _ratio(2 * true.sum(axis=1), (claimed + actual).sum(axis=1)),
        "f1_samples": weights @ _ratio(2 * hits.sum(axis=1), sizes) / total,
        "average_precision": np.mean(
            [_average_precision(*pair, weights) for pair in zip(targets.T, probabilities.T, strict=True)], axis=0
        ),
        "exact_match": weights @ (predicted == targets).all(axis=1) / total,
        "log_loss": weights @ row_loss / total,
        **_by_label(rates, labels),
    }


def _average_precision(targets: Values, chances: Values, weights: Values) -> Values:
    """Area under the precision-recall curve as a sum of steps; 0 where no counted row has the label."""
    order = np.argsort(-chances, kind="stable")
    ends = np.append(np.diff(chances[order]) != 0, True)  # equal chances are one step
    true = np.cumsum(weights[:, order] * targets[order], axis=1)[:, ends]
    counted = np.cumsum(weights[:, order], axis=1)[:, ends]
    gained = np.diff(true, axis=1, prepend=0.0)
    return _ratio((gained * _ratio(true, counted)).sum(axis=1), true[:, -1])


def best_thresholds(targets: Values, probabilities: Values) -> Values:
    """Returns the threshold of each label, (labels,), that gives it the highest F1; 0.5 where a label has no row.

    Midway between the neighbouring probabilities, so that it does not hang on the last digits of one row's.
    """
    found = np.full(targets.shape[1], 0.5)
    for label in range(targets.shape[1]):
        order = np.argsort(-probabilities[:, label], kind="stable")
        chances, right = probabilities[order, label], targets[order, label]
        if not right.any():
            continue
        f1 = 2 * np.cumsum(right) / (np.arange(1, len(right) + 1) + right.sum())
        f1[:-1][chances[:-1] == chances[1:]] = 0.0  # a threshold cannot part equal probabilities
        best = int(f1.argmax())
        below = chances[best + 1] if best + 1 < len(chances) else 0.0
        found[label] = (chances[best] + below) / 2
    return found


def segmentation_scores(counts: NDArray[np.int64], weights: Values, *, labels: Sequence[str]) -> dict[str, Values]:
    """Returns mean IoU, pixel accuracy, mean accuracy, and IoU, precision and recall of each class; also boundary F1.

    Args:
        counts: (images, classes, classes), pixels of each class (rows) that are predicted as each class (columns); four columns
            more, where boundaries are scored, are of pixels on them: predicted ones that meet a true boundary, all predicted
            ones, true ones that are met, all true ones.
        weights: (resamples, images), how often each image is counted.
        labels: names of the classes.

    Returns:
        name -> (resamples,). Pixels of all images are added up before anything is divided; the means leave out a class that
        no pixel has and none is given.
    """
    whole = np.tensordot(weights, counts.astype(np.float64), axes=1)
    total = whole[..., : len(labels)]
    true = np.einsum("rkk->rk", total)
    actual, claimed = total.sum(axis=2), total.sum(axis=1)
    iou = _ratio(true, actual + claimed - true)
    recall = _ratio(true, actual)
    return {
        "mean_iou": _macro(iou, claimed, actual),
        "pixel_accuracy": _ratio(true.sum(axis=1), actual.sum(axis=1)),
        "mean_accuracy": _macro(recall, np.zeros_like(actual), actual),
        **_by_label({"iou": iou, "precision": _ratio(true, claimed), "recall": recall}, labels),
        **(_boundary_scores(whole[..., len(labels) :], labels) if whole.shape[-1] > len(labels) else {}),
    }


def _boundary_scores(edges: Values, labels: Sequence[str]) -> dict[str, Values]:
    """Returns F1 of boundaries, their mean and of each class, (resamples,), from sums over images, (resamples, classes, 4)."""
    found, claimed, met, actual = np.moveaxis(edges, -1, 0)
    precision, recall = _ratio(found, claimed), _ratio(met, actual)
    f1 = _ratio(2 * precision * recall, precision + recall)
    return {"boundary_f1": _macro(f1, claimed, actual), **_by_label({"boundary_f1": f1}, labels)}


def tagging_scores(
    counts: NDArray[np.int64], words: NDArray[np.int64], weights: Values, *, types: Sequence[str], plain: bool
) -> dict[str, Values]:
    """Returns precision, recall and F1 of entities (together, mean over types, of each type) and the accuracy of words.

    Args:
        counts: (units, 5, types), numbers of entities: found, claimed, there are; found and claimed of those without a fault.
        words: (units, 2), how many have the right tag, and how many there are.
        weights: (resamples, units), how often each unit is counted.
        types: names.
        plain: each word is an entity of its own and its tag the type: precision, recall and F1 together are the accuracy.

    Returns:
        name -> (resamples,). A mean over types leaves out those that are neither there nor claimed, as seqeval does.
    """
    found, claimed, actual, strict, strictly_claimed = np.moveaxis(np.tensordot(weights, counts, axes=1), 1, 0)
    each = _rates(found, claimed, actual)
    scores = {} if plain else {
        "f1": _ratio(2 * found.sum(axis=1), (claimed + actual).sum(axis=1)),
        "precision": _ratio(found.sum(axis=1), claimed.sum(axis=1)),
        "recall": _ratio(found.sum(axis=1), actual.sum(axis=1)),
        "f1_strict": _ratio(2 * strict.sum(axis=1), (strictly_claimed + actual).sum(axis=1)),
    }  # fmt: skip
    scores |= {f"{name}_macro": _macro(values, claimed, actual) for name, values in each.items()}
    right, total = (weights @ words).T
    scores["accuracy"] = _ratio(right, total)
    return scores | _by_label(each, types)
