"""`finespun predict --output found.json`: COCO's JSON that pycocotools takes beside the annotations that were read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from finespun.errors import DataError
from finespun.evaluation.predict_file import predict_file
from helpers import ROOT
from tuned import HARDLY, tuned

sys.path.insert(0, str(ROOT / "tests" / "unit" / "tasks"))
import test_object_detection as detection
import test_semantic_segmentation as segmentation


def test_boxes_keep_the_numbers_of_the_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows, task = detection.scenes(tmp_path / "scenes"), detection.SHIPPED | {"min_score": 0.0}
    model = {"checkpoint": str(detection.tiny(tmp_path / "tiny", "yolos"))}
    folder = tuned(tmp_path, detection.in_cells(rows), detection.COLUMNS, model=model, task=task, **HARDLY)
    detection.by_format(tmp_path, rows, "coco")  # coco.json, whose categories are 7 and 8
    given: dict[str, Any] = {"folder": folder, "columns": {"image": "image"}, "reading": {"file_format": "coco"}}
    count, failed = predict_file(tmp_path / "coco.json", tmp_path / "found.json", **given)
    assert (count, failed) == (len(rows), 0)
    found = json.loads((tmp_path / "found.json").read_text())
    assert {each["id"]: each["name"] for each in found["categories"]} == {7: "ball", 8: "square"}
    assert found["images"][3] == {"id": 3, "file_name": "scenes/3.png", "width": 64, "height": 48}
    for image in json.loads((tmp_path / "coco.json").read_text())["images"]:
        assert any(each["image_id"] == image["id"] for each in found["annotations"])
    truth = COCO(str(tmp_path / "coco.json"))
    assert len(truth.loadRes(found["annotations"]).getAnnIds()) == len(found["annotations"])


def test_a_folder_of_images_has_masks_as_run_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = segmentation.scenes(tmp_path / "scenes")
    model = {"checkpoint": str(segmentation.tiny(tmp_path / "tiny", "segformer"))}
    folder = tuned(tmp_path, rows, segmentation.COLUMNS, model=model, task=segmentation.options(), **HARDLY)
    for path in (tmp_path / "scenes").glob("*_mask.png"):
        path.unlink()
    (tmp_path / "scenes" / "z.png").write_text("no image")
    count, failed = predict_file(tmp_path / "scenes", tmp_path / "found.json", folder=folder, columns={})
    assert (count, failed) == (len(rows) + 1, 1)
    found = json.loads((tmp_path / "found.json").read_text())
    assert sum(each["area"] for each in found["annotations"] if each["image_id"] == 1) == 48 * 32
    assert [each for each in found["annotations"] if each["image_id"] == count] == []
    monkeypatch.setattr("finespun.tasks.semantic_segmentation.SemanticSegmentation.answer_roles", {"label": None})
    for name, option in (("found.csv", {"draw": "drawn"}), ("found.json", {})):
        with pytest.raises(DataError, match="answers label, and it is for boxes and masks"):
            predict_file(tmp_path / "scenes", tmp_path / name, folder=folder, columns={}, **option)
