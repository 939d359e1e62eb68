"""Average precision equals that of pycocotools and of faster-coco-eval, on any boxes and in resamples."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finespun.tasks.metrics.detection import Boxes, DetectionScores

LABELS = ["cat", "dog"]


def scene(random: Any, *, ties: bool) -> tuple[Boxes, Boxes]:
    """Boxes of one image, and detections near them, some twice, some wrong, with scores that are often the same."""
    count = int(random.integers(0, 5))
    low = random.uniform(0, 150, (count, 2))
    places = np.concatenate([low, low + random.choice([6, 20, 50, 120], (count, 2)) * random.uniform(0.8, 1.2, (count, 2))], 1)
    labels = random.integers(0, 2, count)
    actual = Boxes(places, labels, (random.random(count) < 0.15).astype(float))
    again = np.repeat(np.arange(count), random.integers(0, 3, count))
    noise = random.normal(0, random.choice([0.5, 3]), (len(again), 4))
    near = places[again] + noise
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    stray = random.uniform(0, 100, (2, 2))
    near = np.concatenate([near, np.concatenate([stray, stray + random.uniform(3, 110, (2, 2))], 1)])
    said = np.where(random.random(len(near)) < 0.85, np.append(labels[again], [0, 1]), random.integers(0, 2, len(near)))
    return actual, Boxes(near, said, random.random(len(near)).round(1 if ties else 9))


def by(module: Any, evaluator: Any, scenes: list[tuple[Boxes, Boxes]]) -> dict[str, float]:
    """What a COCO implementation says: -1, nothing can be said, is 0."""
    images = [{"id": number, "width": 400, "height": 400} for number in range(1, len(scenes) + 1)]
    truths, found = [], []
    for number, (actual, detected) in enumerate(scenes, 1):
        for boxes, into, name in ((actual, truths, "iscrowd"), (detected, found, "score")):
            for place, label, score in zip(boxes.places, boxes.labels, boxes.scores, strict=True):
                box = [*place[:2], *(place[2:] - place[:2])]
                into.append({
                    "id": len(into) + 1, "image_id": number, "category_id": int(label) + 1, "bbox": list(map(float, box)),
                    "area": float(box[2] * box[3]), name: int(score) if name == "iscrowd" else float(score),
                })  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        data = module()
        data.dataset = {
            "images": images, "annotations": truths, "info": {},
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }  # fmt: skip
        data.createIndex()
        run = evaluator(data, data.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    names = ["map", "map_50", "map_75", "map_small", "map_medium", "map_large"]
    told = dict(zip(names, (max(0.0, float(each)) for each in run.stats[:6]), strict=True))
    return told | {"recall_100": max(0.0, float(run.stats[8]))}


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.booleans())
def test_scores_are_those_of_pycocotools_and_faster_coco_eval(seed: int, ties: bool) -> None:
    import faster_coco_eval
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    random = np.random.default_rng(seed)
    scenes = [scene(random, ties=ties) for _ in range(7)]
    drawn = random.integers(0, 7, 7)
    weights = np.stack([np.ones(7), np.bincount(drawn, minlength=7)])
    ours = DetectionScores([a for a, _ in scenes], [f for _, f in scenes], labels=LABELS)(weights)
    theirs = by(COCO, COCOeval, scenes)
    faster = by(faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster, scenes)
    assert {name: float(ours[name][0]) for name in theirs} == pytest.approx(theirs, abs=1e-6)
    assert theirs == pytest.approx(faster, abs=1e-6)
    if not ties:  # copies of an image with equal scores take turns there
        again = by(COCO, COCOeval, [scenes[each] for each in sorted(drawn)])
        assert {name: float(ours[name][1]) for name in again} == pytest.approx(again, abs=1e-6)


def test_nothing_found_and_nothing_there_are_numbers() -> None:
    none = Boxes(np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0))
    one = Boxes(np.array([[0.0, 0, 50, 50]]), np.array([0]), np.zeros(1))
    for actual, found, expected in ((none, none, 0.0), (one, none, 0.0), (none, one, 0.0)):
        assert DetectionScores([actual], [found], labels=LABELS)(np.ones((1, 1)))["map"][0] == expected
    right = Boxes(one.places, one.labels, np.array([0.4]))
    scores = DetectionScores([one], [right], labels=LABELS)(np.array([[1.0], [0.0]]))
    assert scores["map"].tolist() == pytest.approx([1.0, 0.0])
    assert scores["map_medium"].tolist() == pytest.approx([1.0, 0.0])
