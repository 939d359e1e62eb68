"""Annotations as tools and people write them wrongly: each is an error with its place and a remedy, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from finespun.config.sections import Target
from finespun.config.targets import build
from finespun.data.sources.tables import read
from finespun.errors import DataError
from helpers import ROOT

WIDTH, HEIGHT = 64, 48


def found(folder: Path, path: Path, file_format: str, task: str, column: str, **changes: Any) -> list[str]:
    """All that is wrong with annotations: what ends reading, or what is reported of rows."""
    said = yaml.safe_load((ROOT / "conf" / "task" / f"{task}.yaml").read_text()) | changes
    made: Any = build("task", Target.model_validate(said)).reading_from(folder)
    problems = []
    try:
        for line in read(path, file_format=file_format):
            row = {"image": line.row["image"], next(iter(made.answer_roles)): line.row[column]}
            problems += [f"{line.number}: {role} {what}" for _, role, what in made.problems(row, ["ball", "stop"])]
    except DataError as error:
        return [str(error)]
    return problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


IMAGE, CATEGORY = {"id": 1, "file_name": "images/a.png"}, {"id": 1, "name": "ball"}
BARE = {"id": 9, "image_id": 1, "category_id": 1}
SQUARE = [1, 1, 1, 9, 9, 9, 9, 1]


def coco(*annotations: Any, **parts: Any) -> str:
    return json.dumps({"images": [IMAGE], "categories": [CATEGORY], "annotations": [*annotations]} | parts)


COCO: dict[str, tuple[str, str]] = {
    "cut short": ('{"images": [', "coco.json: is not COCO's JSON (JSONDecodeError"),
    "a list of results": ('[{"image_id": 1}]', "is not COCO's JSON (TypeError"),
    "no categories": ('{"images": [], "annotations": []}', "is not COCO's JSON (KeyError: 'categories')"),
    "an image twice": (coco(images=[IMAGE, IMAGE]), "images: the id 1 stands there twice; give each its own"),
    "a category twice": (coco(categories=[CATEGORY, {"id": 2, "name": "ball"}]), "categories: the name 'ball' stands there twice"),
    "another image": (coco(BARE | {"image_id": 7, "bbox": [1, 1, 2, 2]}), "annotation 9: image_id 7 is none of images"),
    "another category": (coco(BARE | {"category_id": 7, "bbox": [1, 1, 2, 2]}), "category_id 7 is none of categories (ball)"),
    "neither box nor region": (coco(BARE), "annotation 9: lacks image_id, category_id, or both bbox and segmentation"),
    "an annotation that is none": (coco("box"), "annotation 1: lacks image_id, category_id, or both"),
    "three numbers": (coco(BARE | {"bbox": [1, 2, 3]}), "box 1 (annotation 9) has not four numbers and a label"),
    "a box outside": (coco(BARE | {"bbox": [70, 2, 3, 3]}), "box 1 (annotation 9) (70, 2, 73, 5) lies outside the image of 64 x 48"),
    "negative width": (coco(BARE | {"bbox": [20, 2, -3, 3]}), "has swapped corners: x_max is below x_min"),
    "no width": (coco(BARE | {"bbox": [20, 2, 0, 3]}), "is empty: its width or height is 0; remove it"),
    "null": (coco(BARE | {"bbox": [20, 2, None, 3]}), "has something that is no number (20, 2, None, 3); correct it"),
    "an unknown label": (coco(BARE | {"bbox": [1, 1, 9, 9]}, categories=[{"id": 1, "name": "bal"}]), "label 'bal' is not one of"),
    "twice": (
        coco(BARE | {"bbox": [1, 1, 9, 9]}, BARE | {"id": 10, "bbox": [1, 1, 9, 9]}),
        "box 2 (annotation 10) is the same as box 1 (annotation 9); remove one of them",
    ),
    "a missing image": (coco(images=[{"id": 1, "file_name": "gone.png"}]), "1: image is not there (looked in"),
}  # fmt: skip


@pytest.mark.parametrize("name", COCO)
def test_coco(folder: Path, name: str) -> None:
    content, message = COCO[name]
    (folder / "coco.json").write_text(content)
    assert message in "\n".join(found(folder, folder / "coco.json", "coco", "object_detection", "boxes"))


SEGMENTS: dict[str, tuple[Any, str]] = {
    "two points": ([[1, 1, 9, 9]], "segment 1 (annotation 9) has a polygon of 4 numbers"),
    "an odd number": ([[1, 1, 9, 9, 5, 5, 7]], "has a polygon of 7 numbers; a polygon has an even number of them"),
    "not a number": ([[1, 1, 9, "x", 5, 5]], "has something that is no number"),
    "NaN": ([[1, 1, 9, float("nan"), 5, 5]], "has something that is no number (NaN or infinity)"),
    "a flat list": ([1, 1, 9, 9, 5, 5], "is a flat list of numbers or something else"),
    "a text": ("everywhere", "is neither polygons nor run lengths (everywhere)"),
    "a point outside": ([[1, 1, 90, 9, 5, 5]], "has points (1, 1) to (90, 9) outside the image of 64 x 48 pixels; correct it"),
    "no pixel": ([[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]], "covers no pixel; remove it"),
    "other size": ({"size": [10, 10], "counts": [50, 50]}, "has the size 10 x 10 and its image 64 x 48 pixels"),
    "too few": ({"size": [HEIGHT, WIDTH], "counts": [50, 50]}, "has counts that add up to 100, and 3072 pixels; write it again"),
    "negative": ({"size": [HEIGHT, WIDTH], "counts": [-50, 3122]}, "has counts that add up to 3072, and 3072"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "is no run lengths (KeyError: 'counts'); write {size: [height, width], counts}"),
    "cut text": ({"size": [HEIGHT, WIDTH], "counts": "P"}, "is no run lengths (IndexError"),
    "of a sky": ({"size": [10**9, 10**9], "counts": [0, 10**18]}, "has 1,000,000,000,000,000,000 pixels, more than 178,000,000"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEGMENTS)
def test_segments(folder: Path, name: str) -> None:
    given, message = SEGMENTS[name]
    (folder / "coco.json").write_text(coco(BARE | {"bbox": [1, 1, 9, 9], "segmentation": given}))
    path = folder / "coco.json"
    assert message in "\n".join(found(folder, path, "coco", "semantic_segmentation", "segments", classes={0: "no", 1: "ball"}))


def test_segments_of_other_classes_and_forms(folder: Path) -> None:
    (folder / "coco.json").write_text(coco(BARE | {"segmentation": [SQUARE]}))
    path, options = folder / "coco.json", {"classes": {0: "no", 1: "bal"}}
    (said,) = found(folder, path, "coco", "semantic_segmentation", "segments", **options)
    assert "segment 1 (annotation 9): label 'ball' is none of task.classes (0: no, 1: bal); name it there" in said
    rows = [{"image": "images/a.png", "mask": [{"label": "bal"}, "ball", [1, 2]]}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) for row in rows))
    said = found(folder, folder / "rows.jsonl", "jsonl", "semantic_segmentation", "mask", **options)
    assert len(said) == 3
    assert all("has no label or no segmentation" in each for each in said)


def yolo(line: str, **files: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "labels").mkdir()
        contents = {"labels/a.txt": line, "classes.txt": "ball\nstop\n"} | files
        for name, text in contents.items():
            if text:
                (folder / name).write_text(text)

    return write


YOLO: dict[str, tuple[Callable[[Path], None], str]] = {
    "no names": (yolo("0 .5 .5 .1 .1", **{"classes.txt": ""}), "nothing says what classes are called; write classes.txt"),
    "names that are none": (yolo("0 .5 .5 .1 .1", **{"data.yaml": "nc: 2"}), "data.yaml: has no `names`"),
    "another class": (yolo("0 .5 .5 .1 .1\n7 .5 .5 .1 .1"), "labels/a.txt:2: class '7' is none of 0 to 1 (ball, stop)"),
    "a name": (yolo("ball .5 .5 .1 .1"), "labels/a.txt:1: class 'ball' is none of 0 to 1"),
    "three numbers": (yolo("0 .5 .5 .1"), "box 1 (labels/a.txt:1) has not four numbers and a label"),
    "with a score": (yolo("0 .5 .5 .1 .1 .9"), "box 1 (labels/a.txt:1) has not four numbers and a label"),
    "a comma": (yolo("0 .5 .5 .1 ,1"), "has something that is no number (.5, .5, .1, ,1); correct it"),
    "pixels": (yolo("0 32 24 10 10"), "lies outside the image of 64 x 48 pixels"),
    "empty": (yolo("0 .5 .5 0 .1"), "is empty: its width or height is 0"),
    "no image": (yolo("0 .5 .5 .1 .1", **{"labels/c.txt": "0 .5 .5 .1 .1"}), "labels/c.txt: there is no image of this name"),
}  # fmt: skip


@pytest.mark.parametrize("name", YOLO)
def test_yolo(folder: Path, name: str) -> None:
    write, message = YOLO[name]
    write(folder)
    assert message in "\n".join(found(folder, folder, "yolo", "object_detection", "boxes"))


def voc(box: str = "", *, image: str = "a.png", label: str = "ball") -> str:
    inside = f"<object><name>{label}</name><bndbox>{box}</bndbox></object>" if box else ""
    return f"<annotation><filename>{image}</filename>{inside}</annotation>"


EDGES = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
VOC: dict[str, tuple[str, str]] = {
    "cut short": (voc()[:-5], "a.xml: is no XML ("),
    "something else": ("<svg/>", "begins with <svg>, and Pascal VOC's files with <annotation>; remove or convert it"),
    "entities": ('<!DOCTYPE a [<!ENTITY b "bb">]>' + voc(), "declares a document type, which can name other files"),
    "no such image": (voc(image="z.png"), "filename 'z.png': no image below the folder has that name"),
    "no image": ("<annotation/>", "filename '': no image below the folder has that name"),
    "no edges": (voc("<xmin>3</xmin>"), "box 1 (a.xml) has something that is no number"),
    "no label": (voc(EDGES.format(1, 1, 9, 9), label=""), "box 1 (a.xml): label '' is not one of ball, stop"),
    "swapped": (voc(EDGES.format(9, 1, 2, 9)), "has swapped corners"),
    "outside": (voc(EDGES.format(90, 1, 99, 9)), "lies outside the image of 64 x 48 pixels"),
    "a word": (voc(EDGES.format("left", 1, 9, 9)), "has something that is no number (left, 0.0, 9, 9)"),
}


@pytest.mark.parametrize("name", VOC)
def test_voc(folder: Path, name: str) -> None:
    content, message = VOC[name]
    (folder / "a.xml").write_text(content)
    assert message in "\n".join(found(folder, folder, "voc", "object_detection", "boxes"))


def test_a_folder_without_annotations_and_two_images_of_one_name(folder: Path) -> None:
    assert "holds no .xml file, and data.format: voc is a file an image" in str(
        found(folder, folder, "voc", "object_detection", "boxes")
    )
    (folder / "deep").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "deep" / "a.png")
    (folder / "a.xml").write_text(voc())
    said = found(folder, folder, "voc", "object_detection", "boxes")
    assert "2 images have that name; correct it" in str(said)
    with pytest.raises(DataError, match="is a file; data.format: voc is a folder of images"):
        list(read(folder / "a.xml", file_format="voc"))
