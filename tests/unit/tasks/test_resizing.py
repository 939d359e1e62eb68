"""How images come to the model's size: places in them are found again, and padded pixels are those of plain transformers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from pydantic import ValidationError

from finespun.config.sections import Target
from finespun.config.targets import build
from finespun.data.loader import RowReader
from finespun.errors import FinespunError, ModelError
from finespun.evaluation.predictor import Predictor
from finespun.models.pretrained import require_same_pixels
from finespun.tasks.answers.boxes import PADDING
from finespun.tasks.base import Batch
from finespun.tasks.inputs.image_encoder import ImageEncoder
from helpers import ROOT
from tuned import HARDLY, measured, prepared, tuned

sys.path.insert(0, str(ROOT / "tests" / "unit" / "tasks"))
import test_object_detection as detection
import test_semantic_segmentation as segmentation

VALUES = {name: value for value, name in segmentation.CLASSES.items()}
KEPT = ["letterbox", "shortest_edge"]  # shapes
PROCESSOR = {"image_processor_type": "DetrImageProcessor", "size": {"height": 32, "width": 32}}  # one that can letterbox


def collated(table: Any, task: Any, encoder: ImageEncoder) -> Batch:
    reader = RowReader(table.select([name for name in (*task.model_columns, "target") if name in table.column_names]))
    rows = np.arange(table.num_rows)
    inputs, targets = task.collate(reader.take(rows), encoder)
    return Batch(inputs, targets, torch.from_numpy(rows), torch.ones(len(rows)), len(rows))


@pytest.mark.parametrize("kind", ["Detr", "RTDetr", "Yolos"])
def test_padded_pixels_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    getattr(transformers, f"{kind}ImageProcessorPil")(size={"height": 64, "width": 90}, do_normalize=True).save_pretrained(
        tmp_path
    )
    encoder = ImageEncoder.read(tmp_path, None, whole=True, letterbox=True)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, **encoder.changes)
    require_same_pixels(processor, encoder, tmp_path)
    assert encoder.filled((90, 64)) == encoder.size == (64, 90)
    assert encoder.filled((180, 64)) == (32, 90)
    assert encoder.filled((10, 64)) == (64, 10)
    assert encoder.filled((100_000, 2)) == (1, 90), "of an image, something is left"
    processor.save_pretrained(tmp_path / "saved")
    assert ImageEncoder.read(tmp_path / "saved", None, whole=True, letterbox=True).size == (64, 90)
    assert ImageEncoder.read(tmp_path / "saved", None, whole=True).size == (64, 90), "trained on from there, without padding"


@pytest.mark.parametrize("resize", KEPT)
def test_shapes_are_kept_and_perfect_boxes_are_perfect(tmp_path: Path, resize: str) -> None:
    rows, task = detection.scenes(tmp_path / "scenes"), detection.SHIPPED | {"resize": resize, "min_score": 0.0}
    model = {"checkpoint": str(detection.tiny(tmp_path / "tiny", "rt_detr"))}
    _, data = prepared(tmp_path, detection.in_cells(rows), detection.COLUMNS, task=task, model=model)
    built, table = build("task", Target.model_validate(task)), data.open("train")
    batch = collated(table, built, built.encoder(tmp_path / "tiny"))
    assert batch.targets is not None
    for pixels, boxes in zip(batch.inputs["pixel_values"], batch.targets, strict=True):
        for _, x, y, width, height, _ in boxes[boxes[:, 0] != PADDING].tolist():
            if resize == "letterbox":  # 64 x 48 in 64 x 64: nothing is scaled
                assert (64 * width, 64 * height) == pytest.approx((15, 15), abs=1e-3)
                assert abs(float(pixels[0, int(64 * y), int(64 * x)]) - 0.45) > 0.3, "a square or a ball is there"
            elif 0.2 < x < 0.8 and 0.2 < y < 0.8:
                assert width == pytest.approx(height, abs=1e-3)
    found = torch.cat([torch.where(batch.targets[..., 1:5] < 0, 0, batch.targets[..., 1:5]), torch.ones(len(table), 1, 4)], 1)
    chances = torch.full((*found.shape[:2], 2), -9.0)  # the last box of each row is everything, and is not believed
    for row, boxes in enumerate(batch.targets):
        for place, box in enumerate(boxes):
            if box[0] != PADDING:
                chances[row, place, int(box[0])] = float(box[3] * box[4])
    perfect = Mock(return_value=SimpleNamespace(logits=chances, pred_boxes=found))
    perfect.config = SimpleNamespace(num_labels=2, model_type="rt_detr")
    outputs = built.predict(perfect, batch.inputs)
    judged = built.judge(table, outputs, data.labels)
    assert judged.units == len(set(table["row"].to_pylist()))
    assert judged.scores(np.ones((1, judged.units)))["map"][0] == pytest.approx(1)
    assert resize != "letterbox" or max(edges for output in outputs for edges in output[:, 2:].ravel()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("resize", KEPT)
def test_perfect_masks_are_perfect(tmp_path: Path, resize: str) -> None:
    rows, task = segmentation.scenes(tmp_path / "scenes"), segmentation.options(resize=resize)
    segmentation.tiny(tmp_path / "tiny", "segformer")
    model = {"checkpoint": str(tmp_path / "tiny"), "processor": PROCESSOR}
    _, data = prepared(tmp_path, rows, segmentation.COLUMNS, task=task, model=model)
    built, table = build("task", Target.model_validate(task)), data.open("train")
    (tmp_path / "tiny" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    batch = collated(table, built, built.encoder(tmp_path / "tiny"))
    assert batch.targets is not None
    logits = torch.nn.functional.one_hot(batch.targets.where(batch.targets != 255, 0), 3).permute(0, 3, 1, 2).float()
    call = Mock(return_value=SimpleNamespace(logits=logits))
    judged = built.judge(table, built.predict(call, batch.inputs), data.labels)
    assert judged.scores(np.ones((1, judged.units)))["mean_iou"][0] == pytest.approx(1)
    plain = {name: each for name, each in batch.inputs.items() if name != "labels"}
    unlabelled = table.drop_columns(["target"])
    answers = built.predictions(unlabelled, built.predict(call, plain), data.labels, top_k=1)
    assert len(answers) == judged.units
    names = dict.fromkeys(table["image"].to_pylist())
    for answer, name in zip(answers, names, strict=True):
        truth = np.asarray(Image.open(tmp_path / name.replace(".png", "_mask.png")))[2:]
        values = np.array([VALUES[label] for label in data.labels])
        same = values[segmentation.mask_in(answer)][2:] == truth
        assert same.mean() > (0.97 if resize == "letterbox" else 0.99), "of 48 x 32 pixels 32 x 21 are kept, or all"


def test_what_a_flip_moves_is_where_the_padding_moves(tmp_path: Path) -> None:
    rows = detection.scenes(tmp_path / "scenes", count=12)
    task = detection.SHIPPED | {"resize": "letterbox", "image_size": 64, "coordinates": "pixels"}
    task["augmentation"] = detection.SHIPPED["augmentation"] | {"flip": True}
    for row in rows:  # tall images: the padding is at the right
        image = Image.open(tmp_path / row["file"]).transpose(Image.Transpose.TRANSPOSE)
        image.save(tmp_path / row["file"])
        row["boxes"] = [
            {"x_min": b["y_min"], "y_min": b["x_min"], "x_max": b["y_max"], "y_max": b["x_max"], "label": b["label"]}
            for b in row["boxes"]
        ]
    model = {"checkpoint": str(detection.tiny(tmp_path / "tiny", "detr"))}
    _, data = prepared(tmp_path, detection.in_cells(rows), detection.COLUMNS, task=task, model=model)
    built, table = build("task", Target.model_validate(task)), data.open("train")
    encoder = built.encoder(tmp_path / "tiny")
    batch = collated(table, built, encoder)
    changed = built.augment(batch, encoder, epoch=0, seed=0)
    masks = changed.inputs["pixel_mask"]
    flipped = masks[:, 0, 0] == 0
    assert 0 < flipped.sum() < len(flipped)
    assert torch.equal(masks[flipped].flip(2), batch.inputs["pixel_mask"][flipped])
    assert torch.equal(masks[~flipped], batch.inputs["pixel_mask"][~flipped])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rt_detr", "detr", "yolos"])
def test_a_letterboxed_detector_answers_as_plain_transformers(tmp_path: Path, name: str) -> None:
    rows, task = detection.scenes(tmp_path / "scenes"), detection.SHIPPED | {"resize": "letterbox", "min_score": 0.0}
    model = {"checkpoint": str(detection.tiny(tmp_path / "tiny", name))}
    folder = tuned(tmp_path, detection.in_cells(rows), detection.COLUMNS, model=model, task=task, **HARDLY)
    loaded, processor = (
        each.from_pretrained(folder) for each in (transformers.AutoModelForObjectDetection, transformers.AutoImageProcessor)
    )
    images = [Image.open(tmp_path / row["file"]) for row in rows[:4]]
    given = processor(images, return_tensors="pt")
    if name == "yolos":
        given.pop("pixel_mask", None)
    with torch.no_grad():
        output = loaded.eval()(**given)
    theirs = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(64, 64)] * 4)  # with padding
    predictor = Predictor(folder)
    predictor.task = predictor.task.reading_from(tmp_path)
    edges = ("x_min", "y_min", "x_max", "y_max")
    for answer, expected in zip(predictor.predict(rows[:4]), theirs, strict=True):
        order = expected["scores"].argsort(descending=True)
        places = expected["boxes"][order].clamp(max=torch.tensor([64.0, 48.0, 64.0, 48.0]))
        there = (places[:, 3] > places[:, 1]) & (places[:, 2] > places[:, 0])
        boxes = [[box[edge] for edge in edges] for box in answer["boxes"]]
        assert [box["score"] for box in answer["boxes"]] == pytest.approx(expected["scores"][order][there].tolist(), abs=1e-5)
        assert np.allclose(np.reshape(boxes, (-1, 4)), places[there].numpy(), atol=2e-3)
    found = measured(tmp_path, detection.in_cells(rows), detection.COLUMNS, folder, task=task, evaluation__baselines=True)
    assert "map" in found.scores


@pytest.mark.slow
@pytest.mark.parametrize("resize", KEPT)
def test_a_segmenter_answers_in_the_size_of_the_image(tmp_path: Path, resize: str) -> None:
    rows, task = segmentation.scenes(tmp_path / "scenes"), segmentation.options(resize=resize)
    model = {"checkpoint": str(segmentation.tiny(tmp_path / "tiny", "segformer")), "processor": PROCESSOR}
    folder = tuned(tmp_path, rows, segmentation.COLUMNS, model=model, task=task, **HARDLY)
    found = measured(tmp_path, rows, segmentation.COLUMNS, folder, task=task, evaluation__baselines=True)
    assert found.predictions.num_rows == len(set(found.predictions["image"].to_pylist()))
    predictor = Predictor(folder)
    predictor.task = predictor.task.reading_from(tmp_path)
    assert {segmentation.mask_in(answer).shape for answer in predictor.predict(rows[:3])} == {(32, 48)}


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    segmentation.tiny(tmp_path / "tiny", "segformer")
    with pytest.raises(ModelError, match=r"SegformerImageProcessor.* pads no images.*DetrImageProcessor"):
        ImageEncoder.read(tmp_path / "tiny", None, whole=True, letterbox=True)
    with pytest.raises((FinespunError, ValidationError), match="set tile: null"):
        detection.make_task(resize="shortest_edge", tile=32)
    tiles = detection.make_task(resize="shortest_edge")._tiles((4000, 2))
    assert len(tiles) < 12, "a line of pixels is no thousand squares"
