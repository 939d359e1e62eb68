"""A folder in YOLO's layout: images, and a text file of the same name for each, with a line an object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from finespun.data.sources import image_folder
from finespun.errors import DataError, listed

NAMES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names", "_darknet.labels")  # where classes are named
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yields `image`, `boxes`, `segments` and `split` (of the first sub-folder called train, val or test; else empty).

    A line is `class x y width height`, shares of the image's sides with the box's centre first, or `class x y x y x y ...`, a
    polygon. An image without a text file has no objects. Labels of images/a.jpg are in labels/a.txt or beside it.

    Raises:
        DataError: nothing names the classes, a line's class is not among them, or labels have no image.
    """
    names = _names(folder)
    left = {path for path in image_folder.files(folder) if path.suffix.lower() == ".txt" and "labels" in path.parts}
    left = {path for path in left if path.name not in NAMES}
    found = False
    for path in image_folder.files(folder):
        if not image_folder.is_image(path):
            continue
        found = True
        inside = path.relative_to(folder)
        labels = next((each for each in _places(folder, inside) if each.is_file()), None)
        left.discard(labels or path)
        split = next((SPLITS[part.lower()] for part in inside.parts[:-1] if part.lower() in SPLITS), "")
        yield {"image": inside.as_posix(), **_objects(labels, names, folder), "split": split}
    if not found:
        raise DataError(f"{folder}: holds no image; data.format: yolo is a folder of images with their labels")
    if left:
        raise DataError(f"{min(left)}: there is no image of this name; put it there, or remove the labels")


def _places(folder: Path, image: Path) -> Iterator[Path]:
    """Yields where the labels of an image may lie."""
    parts = [*image.with_suffix(".txt").parts]
    for place in reversed([number for number, part in enumerate(parts[:-1]) if part == "images"]):
        yield folder.joinpath(*parts[:place], "labels", *parts[place + 1 :])
    yield folder.joinpath(*parts)
    yield folder.joinpath("labels", *parts)


def _names(folder: Path) -> list[str]:
    places = (place / name for place in (folder, folder / "labels") for name in NAMES)
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        raise DataError(
            f"{folder}: nothing says what classes are called; write classes.txt (a line a class) or data.yaml (names)"
        )
    text = path.read_text(encoding="utf-8")
    if path.suffix not in {".yaml", ".yml"}:
        names = [line.strip() for line in text.splitlines()]
        while names and not names[-1]:
            names.pop()
        return names
    try:
        said = yaml.safe_load(text)["names"]
        numbered = said if isinstance(said, dict) else dict(enumerate(said))
        return [str(numbered[number]) for number in range(len(numbered))]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: has no `names`, a list of classes or {{0: first, 1: second}} ({error}); write them"
        ) from error


def _objects(path: Path | None, names: list[str], folder: Path) -> dict[str, list[Any]]:
    boxes: list[Any] = []
    segments: list[Any] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path else [], 1):
        said = line.split()
        if not said:
            continue
        assert path is not None
        where = f"{path.relative_to(folder).as_posix()}:{number}"
        if not (said[0].isascii() and said[0].isdigit() and int(said[0]) < len(names)):
            raise DataError(
                f"{folder}/{where}: class {said[0]!r} is none of 0 to {len(names) - 1} ({listed(names)}); correct it"
            )
        common = {"label": names[int(said[0])], "where": where, "shares": True}
        numbers = _numbers(said[1:])
        if len(said) > 6 and len(said) % 2:
            segments.append(common | {"segmentation": [said[1:]]})
            x, y = (numbers[0::2], numbers[1::2]) if numbers else ([], [])
            boxes.append(common | {"box": [min(x), min(y), max(x), max(y)] if x else said[1:]})
        elif len(numbers) == 4:
            x_centre, y_centre, width, height = numbers
            boxes.append(common | {"bbox": [x_centre - width / 2, y_centre - height / 2, width, height]})
        else:
            boxes.append(common | {"bbox": said[1:]})
    return {"boxes": boxes, "segments": segments}


def _numbers(texts: list[str]) -> list[float]:
    """Returns texts as numbers; none of them where one is no number, which is reported with its row."""
    try:
        return [float(text) for text in texts]
    except ValueError:
        return []
