"""Object detection: the model's own loss, transformers' own post-processing, boxes that move with the pixels, bad boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image

from finespun.artifacts import Artifacts
from finespun.config.sections import Target
from finespun.config.targets import build
from finespun.data.prepared import PreparedData
from finespun.errors import DataError
from finespun.evaluation.predictor import Predictor
from finespun.stages.prepare import prepare
from finespun.tasks.answers.boxes import PADDING
from finespun.tasks.base import Batch
from finespun.tasks.object_detection import found_boxes
from helpers import ROOT, write_csv
from small_run import small_config
from tuned import measured, tuned

SHIPPED = yaml.safe_load((ROOT / "conf" / "task" / "object_detection.yaml").read_text())
COLUMNS = {"image": "file", "boxes": "boxes"}
LABELS = ["ball", "square"]
Given = list[dict[str, Any]]


def make_task(**options: Any) -> Any:
    return build("task", Target.model_validate(SHIPPED | options))


def scenes(folder: Path, count: int = 24) -> Given:
    """Pictures of 64 x 48 pixels with up to two squares and balls; `boxes` are JSON in a cell."""
    folder.mkdir(exist_ok=True)
    random, rows = np.random.default_rng(1), []
    down, right = np.mgrid[:48, :64]
    for number in range(count):
        pixels = random.integers(90, 140, (48, 64, 3), dtype=np.uint8)
        boxes = []
        for turn in range(number % 3):
            y, x = (int(random.integers(9, limit - 9)) for limit in (48, 64))
            square = (number + turn) % 2 == 0
            place = np.maximum(abs(down - y), abs(right - x)) < 8 if square else (down - y) ** 2 + (right - x) ** 2 < 64
            pixels[place] = (220, 30, 30) if square else (30, 30, 220)
            edges = {"x_min": x - 7, "y_min": y - 7, "x_max": x + 8, "y_max": y + 8}
            boxes.append(edges | {"label": "square" if square else "ball"})
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append({"file": f"{folder.name}/{number}.png", "boxes": boxes})
    return rows


def in_cells(rows: Given) -> list[dict[str, str]]:
    return [row | {"boxes": json.dumps(row["boxes"])} for row in rows]


def tiny(folder: Path, name: str) -> Path:
    """A detector of a few ten thousand weights and an image processor beside it."""
    torch.manual_seed(0)
    side = {"height": 64, "width": 64}
    net = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 16, 16, 24],  # oneDNN fails below 16 (docs/detection.md)
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    if name == "rt_detr":
        config: Any = transformers.RTDetrConfig(
            backbone_config=net, freeze_backbone_batch_norms=False, encoder_hidden_dim=16, encoder_in_channels=[16, 16, 24],
            encoder_ffn_dim=16, encoder_attention_heads=2, d_model=16, num_queries=10, decoder_in_channels=[16, 16, 16],
            decoder_ffn_dim=16, decoder_layers=1, decoder_attention_heads=2, num_denoising=4, feat_strides=[8, 16, 32],
        )  # fmt: skip
        model: Any = transformers.RTDetrForObjectDetection(config)
        processor: Any = transformers.RTDetrImageProcessorPil(size=side)
    elif name == "d_fine":
        config = transformers.DFineConfig(
            backbone_config=net, freeze_backbone_batch_norms=False, encoder_hidden_dim=16, encoder_in_channels=[16, 16, 24],
            encoder_ffn_dim=16, encoder_attention_heads=2, d_model=16, num_queries=10, decoder_in_channels=[16, 16, 16],
            decoder_ffn_dim=16, decoder_layers=2, decoder_attention_heads=2, num_denoising=4, feat_strides=[8, 16, 32],
        )  # fmt: skip
        model = transformers.DFineForObjectDetection(config)
        processor = transformers.RTDetrImageProcessorPil(size=side)
    elif name in {"conditional_detr", "deformable_detr"}:
        net.out_features = ["stage4"] if name == "conditional_detr" else net.out_features
        kind = "ConditionalDetr" if name == "conditional_detr" else "DeformableDetr"
        levels = {} if name == "conditional_detr" else {"num_feature_levels": 3}
        config = getattr(transformers, f"{kind}Config")(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=net, d_model=32,
            num_queries=8, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=16, decoder_ffn_dim=16, **levels,
        )  # fmt: skip
        model = getattr(transformers, f"{kind}ForObjectDetection")(config)
        processor = getattr(transformers, f"{kind}ImageProcessorPil")(size=side, do_pad=False)
    elif name == "detr":
        net.out_features = ["stage4"]
        config = transformers.DetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=net, d_model=16,
            num_queries=8,
            encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
            decoder_ffn_dim=16,
        )  # fmt: skip
        model = transformers.DetrForObjectDetection(config)
        processor = transformers.DetrImageProcessorPil(size=side, do_pad=False)
    else:
        config = transformers.YolosConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=[64, 64],
            patch_size=16,
            num_detection_tokens=8,
        )  # fmt: skip
        model = transformers.YolosForObjectDetection(config)
        processor = transformers.YolosImageProcessorPil(size=side, do_pad=False)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


RARER = [pytest.param(name, marks=pytest.mark.slow) for name in ("d_fine", "conditional_detr", "deformable_detr")]
DETECTORS = ["rt_detr", "detr", "yolos", *RARER]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_trains_and_answers_as_plain_transformers(tmp_path: Path, name: str) -> None:
    rows, task = scenes(tmp_path / "scenes"), SHIPPED | {"min_score": 0.05}
    given: dict[str, Any] = {"trainer__max_epochs": 2, "trainer__batch_size": 8, "task": task}
    folder = tuned(tmp_path, in_cells(rows), COLUMNS, model={"checkpoint": str(tiny(tmp_path / "tiny", name))}, **given)
    model, processor = (
        each.from_pretrained(folder) for each in (transformers.AutoModelForObjectDetection, transformers.AutoImageProcessor)
    )
    assert [*model.config.id2label.values()] == LABELS
    images = [Image.open(tmp_path / row["file"]) for row in rows[:4]]
    with torch.no_grad():
        output = model.eval()(**processor(images, return_tensors="pt"))
    theirs = processor.post_process_object_detection(output, threshold=0.05, target_sizes=[(48, 64)] * 4)
    predictor = Predictor(folder)
    predictor.task = predictor.task.reading_from(tmp_path)
    for answer, expected in zip(predictor.predict(rows[:4]), theirs, strict=True):
        order = expected["scores"].argsort(descending=True)
        boxes = [[box[edge] for edge in ("x_min", "y_min", "x_max", "y_max")] for box in answer["boxes"]]
        assert [box["score"] for box in answer["boxes"]] == pytest.approx(expected["scores"][order].tolist(), abs=1e-5)
        assert np.allclose(np.reshape(boxes, (-1, 4)), expected["boxes"][order].numpy(), atol=2e-3)
    found = measured(tmp_path, in_cells(rows), COLUMNS, folder, task=task, evaluation__baselines=True)
    assert set(found.baselines) == {"usual_box_of_label"}
    assert {"map", "map_50", "map_75", "map_small", "map/ball"} <= set(found.scores)
    assert found.baselines["usual_box_of_label"]["map_50"] >= 0


def a_batch(tmp_path: Path, name: str = "rt_detr") -> tuple[Any, Any, Batch]:
    """A prepared training split as one batch, and a detector for it."""
    folder = tiny(tmp_path / "tiny", name)
    write_csv(tmp_path / "rows.csv", in_cells(scenes(tmp_path / "scenes")))
    config = small_config(data={"path": "rows.csv", "columns": COLUMNS}, task=SHIPPED, model={"checkpoint": str(folder)})
    prepare(config, Artifacts(project=tmp_path, out=tmp_path), tmp_path / "prepared")
    task, table = make_task(), PreparedData(tmp_path / "prepared").open("train")
    inputs, targets = task.collate({each: table[each].to_pylist() for each in ("pixels", "target")}, task.encoder(folder))
    model = transformers.AutoModelForObjectDetection.from_pretrained(
        folder, **task.model_options(LABELS), ignore_mismatched_sizes=True
    )
    count = len(table)
    weights = torch.from_numpy(task.counts(table) / task.counts(table).sum()).float()
    return task, model, Batch(inputs, targets, torch.arange(count), weights, count)


@pytest.mark.parametrize("name", DETECTORS)
def test_the_loss_of_a_batch_is_that_of_transformers(tmp_path: Path, name: str) -> None:
    task, model, batch = a_batch(tmp_path, name)
    boxes = [each[each[:, 0] != PADDING] for each in batch.targets]
    labels = [{"class_labels": each[:, 0].long(), "boxes": each[:, 1:5]} for each in boxes]
    assert {len(each) for each in boxes} == {0, 1, 2}
    with torch.no_grad():
        theirs = model.eval()(pixel_values=batch.inputs["pixel_values"], labels=labels).loss
        losses = task.losses(task.forward(model, batch), batch)
    assert float((losses * batch.weights).sum()) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("change", [{"flip": True}, {"rotation": 30.0}, {"translation": 0.2}, {"scale": 0.3}])
def test_boxes_move_with_the_pixels(tmp_path: Path, change: dict[str, Any]) -> None:
    _, _, batch = a_batch(tmp_path)
    task = make_task(augmentation=SHIPPED["augmentation"] | change)
    encoder = task.encoder(tmp_path / "tiny")
    height, width = encoder.size
    painted = torch.zeros(len(batch.targets), 3, height, width)
    for picture, boxes in zip(painted, batch.targets, strict=True):  # a picture of the first box itself
        label, x, y, w, h, _ = boxes[0].tolist()
        if label != PADDING:
            edges = (
                round((y - h / 2) * height),
                round((y + h / 2) * height),
                round((x - w / 2) * width),
                round((x + w / 2) * width),
            )
            picture[:, edges[0] : edges[1], edges[2] : edges[3]] = 1
    moved = task.augment(batch._replace(inputs={"pixel_values": painted}), encoder, epoch=2, seed=7)
    seen, checked = moved.inputs["pixel_values"][:, 0] > 0.5, 0
    for picture, before, after in zip(seen, batch.targets, moved.targets, strict=True):
        inside = picture.nonzero().float()
        label, x, y, w, h, _ = after[0].tolist()
        if label == PADDING or before[0, 0] == PADDING:
            continue
        (top, left), (bottom, right) = inside.amin(0).tolist(), (inside.amax(0) + 1).tolist()
        assert [x - w / 2, x + w / 2] == pytest.approx([left / width, right / width], abs=2.5 / width)
        assert [y - h / 2, y + h / 2] == pytest.approx([top / height, bottom / height], abs=2.5 / height)
        checked += 1
    assert checked >= 5
    assert not torch.equal(moved.targets, batch.targets)
    assert torch.equal(task.augment(batch, encoder, epoch=2, seed=7).targets, moved.targets)


def by_format(folder: Path, rows: Given, name: str) -> dict[str, Any]:
    """Writes the same boxes in a form and returns the section `data`."""
    if name == "coco":
        images = [{"id": number, "file_name": row["file"]} for number, row in enumerate(rows)]
        annotations = [
            {"id": 1, "image_id": number, "category_id": LABELS.index(box["label"]) + 7,
             "bbox": [box["x_min"], box["y_min"], box["x_max"] - box["x_min"], box["y_max"] - box["y_min"]]}
            for number, row in enumerate(rows) for box in row["boxes"]
        ]  # fmt: skip
        categories = [{"id": place + 7, "name": label} for place, label in enumerate(LABELS)]
        told = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "coco.json").write_text(json.dumps(told))
        return {"path": "coco.json", "format": "coco", "columns": {"image": "image", "boxes": "boxes"}}
    if name == "csv_of_boxes":
        empty = dict.fromkeys(("x_min", "y_min", "x_max", "y_max", "label"), "")
        lines = [
            {"file": row["file"], **{k: str(v) for k, v in box.items()}} for row in rows for box in row["boxes"] or [empty]
        ]
        write_csv(folder / "boxes.csv", [*lines[5:], *lines[:5]])  # an image's boxes need not stand together
        return {"path": "boxes.csv", "format": "csv_of_boxes", "columns": COLUMNS}
    if name == "shares":

        def share(box: dict[str, Any]) -> dict[str, Any]:
            sides = {"x_min": 64, "y_min": 48, "x_max": 64, "y_max": 48}
            return box | {edge: box[edge] / side for edge, side in sides.items()}

        rows = [row | {"boxes": [share(box) for box in row["boxes"]]} for row in rows]
    (folder / "boxes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": "boxes.jsonl", "columns": COLUMNS}


def test_all_forms_of_the_same_boxes_are_prepared_alike(tmp_path: Path) -> None:
    folder, rows, found = tiny(tmp_path / "tiny", "yolos"), scenes(tmp_path / "scenes"), {}
    for name in ("coco", "csv_of_boxes", "jsonl", "shares"):
        task = SHIPPED | {"coordinates": "shares" if name == "shares" else "pixels"}
        config = small_config(data=by_format(tmp_path, rows, name), task=task, model={"checkpoint": str(folder)})
        prepare(config, Artifacts(project=tmp_path, out=tmp_path), tmp_path / name)
        data = PreparedData(tmp_path / name)
        assert data.labels == LABELS
        tables = [data.open(split) for split in ("train", "val", "test")]
        pairs = (each for table in tables for each in zip(table["image"].to_pylist(), table["target"].to_pylist(), strict=True))
        found[name] = {image: sorted(np.round(target, 5).tolist()) for image, target in pairs}
    assert len(found["coco"]) == len(rows)
    assert found["coco"] == found["csv_of_boxes"] == found["jsonl"] == found["shares"]


def edges(*numbers: Any) -> dict[str, Any]:
    return dict(zip(("x_min", "y_min", "x_max", "y_max"), numbers, strict=True)) | {"label": "ball"}


def coco(*numbers: Any, **label: str) -> dict[str, Any]:
    return {"bbox": [*numbers]} | (label or {"label": "ball"})


BAD: dict[str, tuple[Any, str]] = {
    "swapped": (edges(30, 5, 10, 20), "has swapped corners: x_max is below x_min, or y_max below y_min; swap them"),
    "upside down": (edges(10, 20, 30, 5), "(10, 20, 30, 5) has swapped corners"),
    "empty": (edges(10, 5, 10, 20), "is empty: its width or height is 0; remove it"),
    "outside": (coco(70, 5, 10, 10), "lies outside the image of 64 x 48 pixels"),
    "above": (coco(7, -15, 10, 10), "lies outside the image of 64 x 48 pixels"),
    "reaching out": (coco(50, 5, 30, 10), "reaches outside the image of 64 x 48 pixels; correct it, or set data.checks"),
    "negative": (coco(-9, 5, 30, 10), "reaches outside the image"),
    "no number": (coco("a", 5, 30, 10), "has something that is no number (a, 5, 30, 10)"),
    "infinite": (coco("inf", 5, 30, 10), "has something that is no number"),
    "nothing": (edges(10, 5, 10, None), "has something that is no number"),
    "three numbers": (coco(5, 30, 10), "has not four numbers and a label"),
    "no label": ({"bbox": [5, 30, 10, 10]}, "has not four numbers and a label"),
    "a number as label": ({"bbox": [5, 30, 10, 10], "label": 7}, "has not four numbers and a label"),
    "an empty label": (coco(5, 30, 10, 10, label=" "), "box 2: label '' is not one of ball, square"),
    "an unknown label": (coco(5, 30, 10, 10, label="bal"), "label 'bal' is not one of ball, square"),
    "no box": ("somewhere", "has not four numbers and a label (somewhere)"),
    "shares": (coco(0.1, 0.1, 0.2, 0.3), "set task.coordinates: shares"),
}


def prepared_with(tmp_path: Path, boxes: Any, **changes: Any) -> PreparedData:
    rows = scenes(tmp_path / "scenes")
    rows[5]["boxes"] = boxes
    (tmp_path / "boxes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"path": "boxes.jsonl", "columns": COLUMNS, "labels": LABELS} | changes
    config = small_config(data=data, task=SHIPPED, model={"checkpoint": str(tiny(tmp_path / "tiny", "yolos"))})
    prepare(config, Artifacts(project=tmp_path, out=tmp_path), tmp_path / "prepared")
    return PreparedData(tmp_path / "prepared")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_box_stops_before_training(tmp_path: Path, name: str) -> None:
    box, message = BAD[name]
    with pytest.raises(DataError, match=r"6: boxes .*box 2") as caught:
        prepared_with(tmp_path, [{"bbox": [1, 1, 20, 20], "label": "ball"}, box])
    assert message in str(caught.value)


def test_the_same_box_twice_and_text_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="box 2 is the same as box 1; remove one of them"):
        prepared_with(tmp_path, [{"bbox": [1, 1, 20, 20], "label": "ball"}] * 2)
    with pytest.raises(DataError, match="is no list of boxes; write a list of"):
        prepared_with(tmp_path, "everywhere")


def test_boxes_that_reach_out_can_be_clipped(tmp_path: Path) -> None:
    boxes = [{"bbox": [48, 24, 32, 48], "label": "ball"}, {"bbox": [90, 90, 5, 5], "label": "ball"}]
    data = prepared_with(tmp_path, boxes, checks={"bad_target": "warn"})
    tables = [data.open(split) for split in ("train", "val", "test")]
    found = {row["image"]: row["target"] for table in tables for row in table.select(["image", "target"]).to_pylist()}
    assert found["scenes/5.png"] == pytest.approx([0, 0.875, 0.75, 0.25, 0.5, 0])


PICTURE, CATEGORY = {"id": 2, "file_name": "a"}, {"id": 1, "name": "a"}
BARE = {"image_id": 2, "category_id": 1}
BAD_FILES = {
    "no JSON": ("{", "coco.json: is not COCO's JSON"),
    "no images": ('{"annotations": [], "categories": []}', "is not COCO's JSON (KeyError: 'images')"),
    "no such image": (
        json.dumps({"images": [], "categories": [CATEGORY], "annotations": [BARE | {"id": 4, "bbox": []}]}),
        "annotation 4: image_id 2 is none of images",
    ),
    "no such category": (
        json.dumps({"images": [PICTURE], "categories": [], "annotations": [BARE | {"bbox": []}]}),
        "annotation 1: category_id 1 is none of categories",
    ),
    "no box": (
        json.dumps({"images": [PICTURE], "categories": [], "annotations": [BARE]}),
        "annotation 1: lacks image_id, category_id, or both bbox and segmentation ('segmentation')",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_annotations_are_errors(tmp_path: Path, name: str) -> None:
    from finespun.data.sources.tables import read

    content, message = BAD_FILES[name]
    (tmp_path / "coco.json").write_text(content)
    with pytest.raises(DataError) as caught:
        list(read(tmp_path / "coco.json", file_format="coco"))
    assert message in str(caught.value)


def test_a_csv_of_boxes_needs_its_columns(tmp_path: Path) -> None:
    from finespun.data.sources.tables import read

    path = tmp_path / "boxes.csv"
    path.write_text("image,xmin,ymin,xmax,label\na.png,1,2,3,cat\n")
    with pytest.raises(DataError, match=r"has no column 'y_max' \(or ymax\); a CSV of boxes has a row a box"):
        list(read(path, file_format="csv_of_boxes"))
    path.write_text("image,xmin,ymin,xmax,ymax,class,place\na.png,1,2,3,4,cat,home\nb.png,,,,,,town\na.png,5,6,7,8,dog,home\n")
    rows = [line.row for line in read(path, file_format="csv_of_boxes")]
    assert [(row["image"], row["place"], [box["label"] for box in row["boxes"]]) for row in rows] == [
        ("a.png", "home", ["cat", "dog"]), ("b.png", "town", []),
    ]  # fmt: skip


def test_the_best_boxes_are_kept() -> None:
    logits, places = torch.randn(2, 30, 4), torch.rand(2, 30, 4)
    found = found_boxes(logits, places, 4, 7)
    assert found.shape == (2, 7, 6)
    assert torch.allclose(found[:, 0, 1], logits.sigmoid().amax((1, 2)))
    assert found_boxes(logits, places, 3, 7).shape == (2, 7, 6)
    assert float(found_boxes(logits, places, 3, 7)[..., 0].max()) <= 2
