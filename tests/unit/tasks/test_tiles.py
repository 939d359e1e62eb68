"""Large images in tiles: the tiles cover them, and what is right in each tile is right in the whole image."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finespun.evaluation.predictor import Predictor
from finespun.tasks.inputs.tiles import OVERLAP, joined_boxes, joined_mask, tiles_of
from helpers import ROOT
from tuned import HARDLY, measured, prepared, tuned

sys.path.insert(0, str(ROOT / "tests" / "unit" / "tasks"))
import test_object_detection as detection
import test_semantic_segmentation as segmentation

SIDE = 32


@pytest.mark.parametrize("size", [(64, 48), (10, 10), (32, 33), (500, 40), (97, 31)])
def test_tiles_cover_an_image_and_overlap(size: tuple[int, int]) -> None:
    covered = np.zeros(size[::-1], dtype=int)
    tiles = tiles_of(size, SIDE)
    for tile in tiles:
        assert tile.size == (min(size[0], SIDE), min(size[1], SIDE))
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert covered.min() == 1
    lefts = sorted({tile.left for tile in tiles})
    assert all(right - left <= SIDE * (1 - OVERLAP) for left, right in pairwise(lefts))


def test_boxes_of_neighbouring_tiles_become_one() -> None:
    tiles = tiles_of((48, 32), SIDE)
    assert [tile.left for tile in tiles] == [0, 16]
    whole, part, other = [0, 0.9, 0.5, 0, 1, 0.5], [0, 0.8, 0, 0, 0.25, 0.5], [1, 0.7, 0, 0, 0.25, 0.5]
    found = joined_boxes([np.array([whole]), np.array([part, other])], tiles, (48, 32))
    assert found[:, :2].tolist() == [[0, 0.9], [1, 0.7]], "a box of another label is another box"
    assert found[0, 2:] * (48, 32, 48, 32) == pytest.approx([16, 0, 32, 16])
    twice = np.array([whole, [0, 0.6, 0.5, 0, 1, 0.5]])
    assert len(joined_boxes([twice, np.zeros((0, 6))], tiles, (48, 32))) == 2, "what one tile says twice is the model's affair"
    assert joined_boxes([np.zeros((0, 6))] * 2, tiles, (48, 32)).shape == (0, 6)


def test_perfect_boxes_in_tiles_are_perfect_boxes(tmp_path: Path) -> None:
    rows, task = detection.scenes(tmp_path / "scenes"), detection.SHIPPED | {"tile": SIDE, "min_score": 0.0}
    model = {"checkpoint": str(detection.tiny(tmp_path / "tiny", "yolos"))}
    _, data = prepared(tmp_path, detection.in_cells(rows), detection.COLUMNS, task=task, model=model)
    table = data.open("train")
    assert table.num_rows == 6 * len(set(table["row"].to_pylist())), "3 x 2 tiles an image"
    outputs = []
    for target in table["target"].to_pylist():
        boxes = np.reshape(target, (-1, 6)).astype(float)
        half, area = boxes[:, 3:5] / 2, boxes[:, 3:5].prod(axis=1, keepdims=True)
        outputs.append(np.hstack([boxes[:, :1], area, boxes[:, 1:3] - half, boxes[:, 1:3] + half]))
    judged = detection.make_task(tile=SIDE, min_score=0.0).judge(table, outputs, data.labels)
    assert judged.units == len(set(table["row"].to_pylist()))
    assert judged.scores(np.ones((1, judged.units)))["map"][0] == pytest.approx(1)
    assert not any(judged.table["mistakes"])


@pytest.mark.parametrize("module", [detection, segmentation], ids=["boxes", "masks"])
def test_a_model_of_tiles_answers_whole_images(tmp_path: Path, module: Any) -> None:
    boxes = module is detection
    rows = detection.in_cells(detection.scenes(tmp_path / "scenes")) if boxes else segmentation.scenes(tmp_path / "scenes")
    task = module.SHIPPED | ({"min_score": 0.0} if boxes else {"classes": segmentation.CLASSES}) | {"tile": SIDE}
    model = {"checkpoint": str(module.tiny(tmp_path / "tiny", "yolos" if boxes else "segformer"))}
    folder = tuned(tmp_path, rows, module.COLUMNS, model=model, task=task, **HARDLY)
    found = measured(tmp_path, rows, module.COLUMNS, folder, task=task, evaluation__baselines=True)
    names = [row["file"] for row in rows]
    assert set(found.predictions["image"].to_pylist()) <= set(names)
    assert len(set(found.predictions["image"].to_pylist())) == found.predictions.num_rows
    assert "map" in found.scores or "boundary_f1" in found.scores
    predictor = Predictor(folder)
    predictor.task = predictor.task.reading_from(tmp_path)
    answers = predictor.predict([{"file": name} for name in (names[0], "gone.png", names[1])])
    assert len(answers) == 3
    assert "error" in answers[1]
    for answer in (answers[0], answers[2]):
        if boxes:
            assert answer["boxes"]
            assert max(box["x_max"] for box in answer["boxes"]) > SIDE, "beyond the first tile"
        else:
            assert segmentation.mask_in(answer).shape == (32, 48)


def test_masks_of_tiles_are_the_mask_of_the_image() -> None:
    mask = np.random.default_rng(0).integers(0, 5, (70, 90), dtype=np.uint8)
    tiles = tiles_of((90, 70), SIDE)
    parts = [mask[tile.top : tile.bottom, tile.left : tile.right] for tile in tiles]
    assert np.array_equal(joined_mask(parts, tiles, (90, 70)), mask)
    wrong = [np.full_like(part, number) for number, part in enumerate(parts)]
    found = joined_mask(wrong, tiles, (90, 70))
    for number, tile in enumerate(tiles):
        assert found[(tile.top + tile.bottom) // 2, (tile.left + tile.right) // 2] == number
