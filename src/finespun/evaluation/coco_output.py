"""Predicted boxes and masks as COCO's JSON (`finespun predict --output found.json`), which `data.format: coco` reads again."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from finespun.data import images
from finespun.data.sources.annotations.regions import bounds, runs

MOST_PIXELS = 178_000_000  # the image was decoded before, within the task's own limit
EDGES = ("x_min", "y_min", "x_max", "y_max")


def document(
    answered: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
    *,
    labels: Sequence[str],
    columns: Sequence[str],
    places: images.Places,
    categories: Mapping[str, int],
) -> dict[str, Any]:
    """Returns images, annotations with `score` (of boxes) or run lengths (of masks), and categories.

    Args:
        answered: rows, each with its answer; one without has no annotations.
        labels: of the model.
        columns: of which a row has one, the path of its image.
        places: where images are looked for.
        categories: numbers of labels, where they are given; other labels have those that follow.
    """
    numbers = dict(categories)
    for label in labels:
        numbers.setdefault(label, 1 + max([0, *numbers.values()]))
    found: list[dict[str, Any]] = []
    shown = []
    for position, (row, answer) in enumerate(answered, 1):
        name = next(str(row[column]) for column in columns if column in row)
        number = row.get("id", position)
        number = int(number) if str(number).isdecimal() else number
        image = {"id": number, "file_name": name}
        if "error" not in answer:
            width, height = images.size_of(images.file_bytes(name, places, max_pixels=MOST_PIXELS), max_pixels=MOST_PIXELS)
            image |= {"width": width, "height": height}
            given = _of_boxes(answer["boxes"]) if "boxes" in answer else _of_mask(answer["mask"], labels)
            for label, said in given:
                found.append({"id": len(found) + 1, "image_id": number, "category_id": numbers[label], "iscrowd": 0} | said)
        shown.append(image)
    return {
        "images": shown,
        "annotations": found,
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
    }


def _of_boxes(boxes: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, dict[str, Any]]]:
    for box in boxes:
        left, top, right, bottom = (float(box[edge]) for edge in EDGES)
        width, height = right - left, bottom - top
        yield box["label"], {"bbox": [left, top, width, height], "area": width * height, "score": box["score"]}


def _of_mask(png: str, labels: Sequence[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yields the region of each class that a mask has."""
    values = np.asarray(Image.open(io.BytesIO(base64.b64decode(png.partition(",")[2]))))
    for value in np.unique(values).tolist():
        region = values == value
        segmentation = runs(region)
        left, top, right, bottom = bounds(segmentation)
        box = [left, top, right - left, bottom - top]
        yield labels[value], {"bbox": box, "area": int(region.sum()), "segmentation": segmentation}
