"""The same boxes and regions, written in every format, are the same rows; regions are drawn as pycocotools draws them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as pycocotools

from finespun.config.sections import DataConfig, Target
from finespun.config.targets import build
from finespun.data.images import Places
from finespun.data.sources.annotations import regions
from finespun.data.sources.source import Source
from finespun.data.sources.tables import read
from finespun.evaluation import coco_output
from finespun.tasks.answers.boxes import Box, as_box
from finespun.tasks.answers.masks import as_png
from helpers import ROOT, write_csv

SIZE = (64, 48)  # width and height of each image
LABELS = ["ball", "stop sign"]
Scenes = dict[str, list[Box]]


def make_task(name: str, **changes: Any) -> Any:
    said = yaml.safe_load((ROOT / "conf" / "task" / f"{name}.yaml").read_text())
    return build("task", Target.model_validate(said | changes))


@pytest.fixture
def scenes(tmp_path: Path) -> Scenes:
    """Three images and their boxes, with fractions of pixels; one has none."""
    found: Scenes = {
        "images/train/a.png": [Box(1, 2, 30.5, 40, "ball"), Box(10.25, 0, 64, 48, "stop sign")],
        "images/train/b.jpg": [],
        "images/val/c.png": [Box(0, 0, 2, 2, "stop sign")],
    }
    for name in found:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(tmp_path / name)
    return found


def write_coco(folder: Path, scenes: Scenes) -> Path:
    images = [{"id": number, "file_name": name} for number, name in enumerate(scenes)]
    boxes = [(number, box) for number, each in enumerate(scenes.values()) for box in each]
    annotations = [
        {"id": place, "image_id": number, "category_id": 3 * LABELS.index(box.label),
         "bbox": [box.x_min, box.y_min, box.x_max - box.x_min, box.y_max - box.y_min]}
        for place, (number, box) in enumerate(boxes)
    ]  # fmt: skip
    categories = [{"id": 3 * place, "name": label} for place, label in enumerate(LABELS)]
    path = folder / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def write_csv_of_boxes(folder: Path, scenes: Scenes) -> Path:
    rows = [
        {"image": name} | {key: str(getattr(box, key)) if box else "" for key in Box._fields[:5]}
        for name, boxes in scenes.items() for box in boxes or [None]
    ]  # fmt: skip
    return write_csv(folder / "boxes.csv", rows)


def write_json_lines(folder: Path, scenes: Scenes) -> Path:
    path = folder / "boxes.jsonl"
    path.write_text(
        "".join(json.dumps({"image": n, "boxes": [b._asdict() for b in each]}) + "\n" for n, each in scenes.items())
    )
    return path


def write_yolo(folder: Path, scenes: Scenes) -> Path:
    (folder / "data.yaml").write_text(yaml.safe_dump({"names": dict(enumerate(LABELS))}))
    for name, boxes in scenes.items():
        path = folder / name.replace("images", "labels").rpartition(".")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            f"{LABELS.index(box.label)} {(box.x_min + box.x_max) / 2 / SIZE[0]} {(box.y_min + box.y_max) / 2 / SIZE[1]}"
            f" {(box.x_max - box.x_min) / SIZE[0]} {(box.y_max - box.y_min) / SIZE[1]}\n"
            for box in boxes
        ]
        if lines:  # an image without a file has no objects
            path.with_suffix(".txt").write_text("".join(lines))
    return folder


def write_voc(folder: Path, scenes: Scenes) -> Path:
    (folder / "Annotations").mkdir()
    for name, boxes in scenes.items():
        objects = "".join(
            f"<object><name>{box.label}</name><difficult>0</difficult><bndbox><xmin>{box.x_min + 1}</xmin><ymin>{box.y_min + 1}"
            f"</ymin><xmax>{box.x_max}</xmax><ymax>{box.y_max}</ymax></bndbox></object>"
            for box in boxes
        )
        text = f"<annotation><folder>train</folder><filename>{Path(name).name}</filename>{objects}</annotation>"
        (folder / "Annotations" / f"{Path(name).stem}.xml").write_text(text)
    return folder


FORMATS: dict[str, Callable[[Path, Scenes], Path]] = {
    "coco": write_coco, "csv_of_boxes": write_csv_of_boxes, "jsonl": write_json_lines, "yolo": write_yolo, "voc": write_voc,
}  # fmt: skip


def boxes_in(path: Path, file_format: str, scenes: Scenes) -> Scenes:
    """What a file or folder says, once it is seen to have no problem."""
    task, found = make_task("object_detection").reading_from(path if path.is_dir() else path.parent), {}
    for line in read(path, file_format=file_format):
        values = {"image": line.row["image"], "boxes": line.row["boxes"]}
        assert [*task.problems(values, None)] == []
        found[line.row["image"]] = [as_box(each, *task._scale(each, SIZE)) for each in line.row["boxes"]]
    assert found.keys() == scenes.keys()
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_says_the_same_boxes_and_is_written_as_coco_again(tmp_path: Path, scenes: Scenes, name: str) -> None:
    found = boxes_in(FORMATS[name](tmp_path, scenes), name, scenes)
    for image, boxes in scenes.items():
        assert [box.label for box in found[image]] == [box.label for box in boxes]
        assert np.allclose([box[:4] for box in found[image]], [box[:4] for box in boxes])
    answered = [
        ({"file": image}, {"boxes": [box._asdict() | {"score": 0.5} for box in boxes]}) for image, boxes in found.items()
    ]
    made = coco_output.document(
        answered, labels=LABELS, columns=("file", "image"), places=Places((tmp_path,), (tmp_path,)), categories={"ball": 7}
    )
    assert [each["name"] for each in made["categories"]] == LABELS
    assert [each["id"] for each in made["categories"]] == [7, 8]
    (tmp_path / "again.json").write_text(json.dumps(made))
    again = boxes_in(tmp_path / "again.json", "coco", scenes)
    assert again.keys() == found.keys()
    for image, boxes in again.items():
        assert np.allclose([box[:4] for box in boxes], [box[:4] for box in found[image]])


def test_several_files_of_annotations_have_their_own_images_and_yolo_says_the_split(tmp_path: Path, scenes: Scenes) -> None:
    write_yolo(tmp_path, scenes)
    assert [line.row["split"] for line in read(tmp_path, file_format="yolo")] == ["train", "train", "val"]
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        write_coco(tmp_path / part, scenes)
    data = {"train": "one/coco.json", "val": "two/coco.json", "test": "two/coco.json"}
    section = DataConfig.model_validate({"path": data, "format": "coco", "columns": {"image": "image", "boxes": "boxes"}})
    images = [line.row["image"] for line in Source(section, tmp_path)()]
    assert images[0] == "one/images/train/a.png"
    assert images[3] == "two/images/train/a.png"


POLYGONS: dict[str, list[list[float]]] = {
    "square": [[1, 1, 1, 9, 9, 9, 9, 1]],
    "triangle": [[0.5, 0.5, 30.2, 11.7, 3.3, 40.9]],
    "at the edge": [[-0.4, 0, 64.5, 0, 64, 48.7, 0, 48]],
    "two": [[1, 1, 1, 9, 9, 9], [20, 20, 40.4, 20.6, 30, 47.9]],
    "crossing itself": [[2, 2, 40, 40, 40, 2, 2, 40]],
}


@pytest.mark.parametrize("name", [*POLYGONS, "a hundred at random"])
def test_polygons_have_the_pixels_of_pycocotools(name: str) -> None:
    width, height = SIZE
    random = np.random.default_rng(2)
    many = [[(random.random((int(random.integers(3, 9)), 2)) * SIZE).ravel().tolist()] for _ in range(100)]
    for polygons in [POLYGONS[name]] if name in POLYGONS else many:
        theirs = pycocotools.decode(pycocotools.merge(pycocotools.frPyObjects(polygons, height, width))).astype(bool)
        assert np.array_equal(regions.drawn(polygons, width, height), theirs), polygons


def test_run_lengths_are_those_of_pycocotools_in_both_ways_to_write_them() -> None:
    random = np.random.default_rng(3)
    for share in (0.02, 0.5, 0.98, 1.0):
        mask = random.random((48, 64)) < share
        packed = pycocotools.encode(np.asfortranarray(mask.astype(np.uint8)))
        written = {"size": packed["size"], "counts": packed["counts"].decode()}
        for given in (written, regions.runs(mask)):
            assert np.array_equal(regions.drawn(given, 64, 48), mask)
        rows, columns = (np.nonzero(mask.any(axis=axis))[0] for axis in (1, 0))
        assert regions.bounds(written) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def masks_of(task: Any, segments: list[dict[str, Any]], labels: list[str]) -> np.ndarray:
    drawn = task._of_segments(segments, SIZE)
    found = np.full((48, 64), 255)
    for value, name in drawn.names.items():
        found[drawn.pixels == value] = labels.index(name)
    return found


def test_segments_are_masks_whichever_way_they_are_written(tmp_path: Path) -> None:
    """Polygons in COCO and YOLO, run lengths, a PNG: the smaller region lies on top, and what none covers is background."""
    large, small = [2.0, 2.0, 2.0, 40.0, 50.0, 40.0, 50.0, 2.0], [10.0, 10.0, 10.0, 20.0, 20.0, 20.0, 20.0, 10.0]
    labels, task = ["background", "ball", "stop sign"], make_task("semantic_segmentation", classes=None)
    polygons = [{"label": "ball", "segmentation": [small]}, {"label": "stop sign", "segmentation": [large]}]
    mask = masks_of(task, polygons, labels)
    assert set(np.unique(mask)) == {0, 1, 2}
    assert mask[15, 15] == 1
    assert mask[30, 30] == 2
    assert mask[45, 60] == 0
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    lines = [f"{LABELS.index(e['label'])} " + " ".join(
        str(n / SIZE[i % 2]) for i, n in enumerate(e["segmentation"][0])) for e in polygons]  # fmt: skip
    (tmp_path / "a.txt").write_text("\n".join(lines))
    (tmp_path / "classes.txt").write_text("\n".join(LABELS) + "\n")
    (row,) = (line.row for line in read(tmp_path, file_format="yolo"))
    assert np.array_equal(masks_of(task, row["segments"], labels), mask)
    answer = {"mask": as_png(mask.astype(np.uint8))}
    places = Places((tmp_path,), (tmp_path,))
    made = coco_output.document([({"image": "a.png"}, answer)], labels=labels, columns=("image",), places=places, categories={})
    (tmp_path / "found.json").write_text(json.dumps(made))
    (row,) = (line.row for line in read(tmp_path / "found.json", file_format="coco"))
    assert np.array_equal(masks_of(task, row["segments"], labels), mask)
    assert task.reading_from(tmp_path).answers({"image": "a.png", "mask": row["segments"]}) == labels


def test_what_no_segment_covers_is_unlabelled_where_classes_have_no_0(tmp_path: Path) -> None:
    segments = [{"label": "ball", "segmentation": [[1, 1, 1, 9, 9, 9]]}]
    task = make_task("semantic_segmentation", classes={1: "ball", 2: "stop sign"})
    assert task.answers({"mask": segments}) == ["ball"]
    assert set(np.unique(masks_of(task, segments, LABELS))) == {0, 255}
    task = make_task("semantic_segmentation", classes={0: "nothing", 1: "ball"})
    assert task.label_names(["ball", "nothing"], {}) == ["nothing", "ball"]
    assert make_task("semantic_segmentation", classes=None).label_names(["b", "background", "a"], {}) == [
        "background",
        "a",
        "b",
    ]
