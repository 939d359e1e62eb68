"""Boxes in images, a row an image: COCO's JSON, and CSV with a row a box."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from finespun.errors import DataError, listed

Numbered = tuple[int, dict[str, Any]]
EDGES = ("x_min", "y_min", "x_max", "y_max")
IMAGES = ("image", "file", "file_name", "filename", "path")  # what the column of images may be called in CSV
LABELS = ("label", "class", "category")


def grouped(rows: Iterable[tuple[Any, ...]], name: str) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Yields a row an image, in the order in which images come first, with its `boxes` and the other cells of its first row.

    A row whose edges and label are empty says that its image has no boxes.

    Raises:
        DataError: a column is missing.
    """
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    columns: dict[str, str] = {}
    errors = []
    for number, row, *error in rows:
        if error and error[0]:
            errors.append((number, row, error[0]))
            continue
        columns = columns or _columns(row, name)
        image = row[columns["image"]]
        if image not in found:
            kept = {key: value for key, value in row.items() if key not in [*columns.values()] or key == columns["image"]}
            found[image] = (number, kept | {"boxes": []})
        box = {role: row[columns[role]] for role in (*EDGES, "label")} | {"line": number}
        if any(str(box[role]).strip() for role in (*EDGES, "label")):
            found[image][1]["boxes"].append(box)
    yield from errors
    yield from ((number, row, "") for number, row in found.values())


def _columns(row: dict[str, Any], name: str) -> dict[str, str]:
    wanted = {edge: (edge, edge.replace("_", "")) for edge in EDGES} | {"image": IMAGES, "label": LABELS}
    found = {role: next((each for each in names if each in row), None) for role, names in wanted.items()}
    missing = [role for role, column in found.items() if column is None]
    if missing:
        raise DataError(
            f"{name}: has no column {missing[0]!r} (or {listed(wanted[missing[0]][1:])}); a CSV of boxes has a row a box:"
            f" image, {', '.join(EDGES)}, label; it has: {listed(row)}"
        )
    return {role: column for role, column in found.items() if column is not None}


def coco(text: str, name: str) -> Iterator[Numbered]:
    """Yields `image` (its file's name), `boxes` and `id` of each image of COCO's annotations for detection.

    Raises:
        DataError: it is no JSON object with images, annotations and categories, or they do not fit each other.
    """
    try:
        said = json.loads(text)
        names = {each["id"]: str(each["name"]) for each in said["categories"]}
        images = {each["id"]: {"image": each["file_name"], "boxes": [], "id": str(each["id"])} for each in said["images"]}
        annotations = said["annotations"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{name}: is not COCO's JSON ({type(error).__name__}: {error}); it is one object with images (id, file_name),"
            " annotations (image_id, category_id, bbox) and categories (id, name)"
        ) from error
    for number, each in enumerate(annotations, 1):
        place = f"{name}: annotation {each.get('id', number) if isinstance(each, dict) else number}"
        try:
            image, label, box = each["image_id"], each["category_id"], each["bbox"]
        except (KeyError, TypeError) as error:
            raise DataError(f"{place}: lacks image_id, category_id or bbox ({error}); add it, or remove it") from error
        if image not in images:
            raise DataError(f"{place}: image_id {image} is none of images; add the image, or remove the annotation")
        if label not in names:
            raise DataError(f"{place}: category_id {label} is none of categories ({listed(names.values())}); correct it")
        crowd = bool(each.get("iscrowd"))
        images[image]["boxes"].append({"bbox": box, "label": names[label], "crowd": crowd, "line": each.get("id", number)})
    yield from enumerate(images.values(), 1)
