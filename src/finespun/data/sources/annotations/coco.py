"""COCO's JSON: annotations of images with boxes and regions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from finespun.data.sources.annotations.regions import RegionError, bounds
from finespun.errors import DataError, listed

FORM = "images (id, file_name), annotations (image_id, category_id, bbox) and categories (id, name)"


def rows(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields `image` (its file's name), `id`, `boxes` and `segments` of each image.

    Boxes are {bbox, label, crowd, where}, segments {segmentation, label, where}. An annotation without `bbox` has the box
    around its segmentation.

    Raises:
        DataError: it is no JSON object with images, annotations and categories, or they do not fit each other.
    """
    names, images, annotations = _parts(text, name)
    for number, each in enumerate(annotations, 1):
        where = f"annotation {each.get('id', number) if isinstance(each, dict) else number}"
        place = f"{name}: {where}"
        try:
            image, label = each["image_id"], each["category_id"]
            box = each["bbox"] if each.get("bbox") is not None else _around(each["segmentation"], place)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{place}: lacks image_id, category_id, or both bbox and segmentation ({error}); add it, or remove it"
            ) from error
        if image not in images:
            raise DataError(f"{place}: image_id {image} is none of images; add the image, or remove the annotation")
        if label not in names:
            raise DataError(f"{place}: category_id {label} is none of categories ({listed(names.values())}); correct it")
        said = {"label": names[label], "where": where}
        images[image]["boxes"].append(said | {"bbox": box, "crowd": bool(each.get("iscrowd"))})
        if each.get("segmentation"):
            images[image]["segments"].append(said | {"segmentation": each["segmentation"]})
    yield from enumerate(images.values(), 1)


def categories(text: str) -> dict[str, int]:
    """Returns the number of each category of annotations that `rows` can read."""
    return {str(each["name"]): each["id"] for each in json.loads(text)["categories"]}


def _parts(text: str, name: str) -> tuple[dict[Any, str], dict[Any, dict[str, Any]], Sequence[Any]]:
    try:
        said = json.loads(text)
        names = {each["id"]: str(each["name"]) for each in said["categories"]}
        images = {
            each["id"]: {"image": str(each["file_name"]), "boxes": [], "segments": [], "id": str(each["id"])}
            for each in said["images"]
        }
        _once([each["id"] for each in said["images"]], f"{name}: images: the id")
        _once([each["id"] for each in said["categories"]], f"{name}: categories: the id")
        _once([str(each["name"]) for each in said["categories"]], f"{name}: categories: the name")
        return names, images, list(said["annotations"])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{name}: is not COCO's JSON ({reason}); it is one object with {FORM}") from error


def _once(values: Sequence[Any], what: str) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise DataError(f"{what} {twice[0]!r} stands there twice; give each its own")


def _around(segmentation: Any, place: str) -> list[float]:
    try:
        left, top, right, bottom = bounds(segmentation)
    except RegionError as error:
        raise DataError(f"{place}: segmentation {error}") from error
    return [left, top, right - left, bottom - top]
