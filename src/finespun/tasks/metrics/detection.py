"""COCO's average precision of boxes over weighted images: matched once, then added up for every resample.

The rules are those of pycocotools 2.0, with which tests compare: boxes of the highest score choose first, at ten thresholds of
intersection over union; boxes of crowds and of other sizes are ignored, and so is what is matched with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # boxes of an image and class that count, those with the highest scores
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}  # pixels
CELLS = 4_000_000  # numbers that are held at once for resamples


@dataclass(frozen=True)
class Boxes:
    """Boxes of an image: `places` (boxes, 4) as x_min, y_min, x_max, y_max; `labels` (boxes,); `scores`, or who is a crowd."""

    places: Values
    labels: NDArray[np.int64]
    scores: Values

    def of(self, label: int) -> Boxes:
        """Returns those of one label."""
        mine = self.labels == label
        return Boxes(self.places[mine], self.labels[mine], self.scores[mine])


@dataclass(frozen=True)
class _Matched:
    """Detections of one label and size, the highest scores first, and how many boxes there are to be found.

    `image` (detections,) is which image each is of; `right` and `counted` (thresholds, detections) are whether it meets a box
    and whether it counts at all; `actual` (images,) are numbers of boxes.
    """

    image: NDArray[np.int64]
    right: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    actual: Values


def overlaps(found: Values, actual: Values, crowd: NDArray[np.bool_]) -> Values:
    """Returns intersection over union, (found, actual); over the found box alone where the other is a crowd."""
    low = np.maximum(found[:, None, :2], actual[None, :, :2])
    high = np.minimum(found[:, None, 2:], actual[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    mine, theirs = (np.clip(each[:, 2:] - each[:, :2], 0, None).prod(axis=1) for each in (found, actual))
    union = np.where(crowd[None], mine[:, None], mine[:, None] + theirs[None] - both)
    return np.asarray(np.divide(both, union, out=np.zeros_like(both), where=union > 0))


class DetectionScores:
    """Average precision and recall of some images' detections, for any weights of the images."""

    def __init__(
        self, actual: Sequence[Boxes], found: Sequence[Boxes], *, labels: Sequence[str], sizes: Sequence[str] = tuple(SIZES)
    ) -> None:
        """Matches boxes; `scores` of `actual` are 1 for a crowd, else 0."""
        self.labels, self.images = labels, len(actual)
        self._matched = {
            size: [_matched([a.of(k) for a in actual], [f.of(k) for f in found], SIZES[size]) for k in range(len(labels))]
            for size in sizes
        }

    def __call__(self, weights: Values) -> dict[str, Values]:
        """Returns name -> (resamples,) for weights (resamples, images).

        `map` is the mean over thresholds from .50 to .95 and over the labels that have a box; `map_50` and `map_75` at one of
        them; `map_small` to `map_large` those of boxes by their area; `recall_100` the mean recall with a hundred boxes an
        image; `map/LABEL` and `map_50/LABEL` those of a label. What nothing can be said of is 0.
        """
        scores: dict[str, Values] = {}
        for size, matched in self._matched.items():
            pairs = [_curves(each, weights) for each in matched]
            precision = np.stack([each for each, _ in pairs], axis=2)  # (resamples, thresholds, labels), NaN without a box
            if size != "all":
                scores[f"map_{size}"] = _mean(precision, (1, 2))
                continue
            recall = np.stack([each for _, each in pairs], axis=2)
            scores |= {"map": _mean(precision, (1, 2)), "map_50": _mean(precision[:, 0], (1,))}
            scores |= {"map_75": _mean(precision[:, 5], (1,)), "recall_100": _mean(recall, (1, 2))}
            for place, label in enumerate(self.labels):
                scores[f"map/{label}"] = _mean(precision[..., place], (1,))
                scores[f"map_50/{label}"] = np.nan_to_num(precision[:, 0, place])
        return scores


def _mean(values: Values, axes: tuple[int, ...]) -> Values:
    """Returns the mean over what is a number; 0 where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=axes)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=axes) / np.maximum(count, 1), 0.0)


def _matched(actual: Sequence[Boxes], found: Sequence[Boxes], sizes: tuple[float, float]) -> _Matched:
    parts = [_of_image(a, f, sizes) for a, f in zip(actual, found, strict=True)]
    scores = np.concatenate([part[0] for part in parts] or [np.zeros(0)])
    order = np.argsort(-scores, kind="stable")
    image = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    right, counted = (np.concatenate([part[place] for part in parts], axis=1)[:, order] for place in (1, 2))
    return _Matched(image[order], right, counted, np.array([part[3] for part in parts], dtype=np.float64))


def _of_image(
    actual: Boxes, found: Boxes, sizes: tuple[float, float]
) -> tuple[Values, NDArray[np.bool_], NDArray[np.bool_], int]:
    """Returns scores of detections, which of them are right and which count at each threshold, and the number of boxes."""
    order = np.argsort(-found.scores, kind="stable")[:MOST]
    places, scores = found.places[order], found.scores[order]
    crowd = actual.scores > 0
    low, high = sizes
    ignored = crowd | ~_within(actual.places, low, high)
    right, counted = np.zeros((2, len(THRESHOLDS), len(scores)), dtype=bool)
    met = np.zeros_like(right)
    if len(crowd) and len(scores):
        met, right = _meet(overlaps(places, actual.places, crowd), crowd, ignored)
    counted = right | (~met & _within(places, low, high))
    return scores, right, counted, int((~ignored).sum())


def _within(places: Values, low: float, high: float) -> NDArray[np.bool_]:
    area = (places[:, 2:] - places[:, :2]).prod(axis=1)
    return np.asarray((area >= low) & (area <= high))


def _meet(overlap: Values, crowd: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns which detections meet a box, and which one that counts, (thresholds, detections) each."""
    order = np.argsort(ignored, kind="stable")  # those that count go first
    overlap, crowd, ignored = overlap[:, order], crowd[order], ignored[order]
    free = np.ones((len(THRESHOLDS), len(crowd)), dtype=bool)
    met, right = np.zeros((2, len(THRESHOLDS), len(overlap)), dtype=bool)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    every = np.arange(len(THRESHOLDS))
    for number, row in enumerate(overlap):
        able = np.where((free | crowd) & (row >= least), row + 1, 0.0)
        best = np.where((able * ~ignored).any(axis=1), _last_largest(able * ~ignored), _last_largest(able))
        hit = able[every, best] > 0
        free[every[hit], best[hit]] = False
        met[:, number], right[:, number] = hit, hit & ~ignored[best]
    return met, right


def _last_largest(values: Values) -> NDArray[np.int64]:
    """Returns where each row has its largest number, of several the last."""
    return np.asarray(values.shape[1] - 1 - values[:, ::-1].argmax(axis=1))


def _curves(matched: _Matched, weights: Values) -> tuple[Values, Values]:
    """Returns average precision and last recall, (resamples, thresholds); NaN where a sample has no box."""
    precision, recall = np.full((2, len(weights), len(THRESHOLDS)), np.nan)
    actual = weights @ matched.actual
    at_once = max(1, CELLS // max(1, len(matched.image)))
    for start in range(0, len(weights), at_once):
        some = slice(start, start + at_once)
        there = actual[some] > 0
        mine = weights[some][there][:, matched.image]
        for place in range(len(THRESHOLDS)):
            right = np.cumsum(mine * matched.right[place], axis=1)
            wrong = np.cumsum(mine * (matched.counted[place] & ~matched.right[place]), axis=1)
            rows = np.flatnonzero(there) + start
            precision[rows, place] = _area(right, wrong, actual[some][there])
            recall[rows, place] = right[:, -1] / actual[some][there] if right.shape[1] else 0.0
    return precision, recall


def _area(right: Values, wrong: Values, actual: Values) -> Values:
    """Returns the mean precision at 101 recalls: the best that is reached at that recall or beyond, (resamples,)."""
    if not right.shape[1]:
        return np.zeros(len(actual))
    precision = right / (right + wrong + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    found = np.zeros(len(actual))
    for sample, (hits, boxes) in enumerate(zip(right, actual, strict=True)):
        at = np.searchsorted(hits / boxes, RECALLS, side="left")
        found[sample] = best[sample, at[at < len(hits)]].sum() / len(RECALLS)
    return found
