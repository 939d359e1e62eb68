"""A folder of Pascal VOC's XML files, one an image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from finespun.data.sources import image_folder
from finespun.errors import DataError

EDGES = {"x_min": "xmin", "y_min": "ymin", "x_max": "xmax", "y_max": "ymax"}
FIRST = 1  # the number of an image's first pixel; edges of boxes are pixels that belong to them


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yields `image` (relative to the folder), `boxes`, and `annotation` (the XML file) of each file, in the order of names.

    Raises:
        DataError: there is no file, one cannot be read, or its image is not below the folder.
    """
    files = [path for path in image_folder.files(folder) if path.suffix.lower() == ".xml"]
    if not files:
        raise DataError(f"{folder}: holds no .xml file, and data.format: voc is a file an image; name the folder that has them")
    images: dict[str, list[Path]] = {}
    for path in image_folder.files(folder):
        if image_folder.is_image(path):
            images.setdefault(path.name, []).append(path)
    for path in files:
        name = path.relative_to(folder).as_posix()
        root = _parsed(path)
        image = _image(root, path, images)
        boxes = [_box(each, name) for each in root.iter("object")]
        yield {"image": image.relative_to(folder).as_posix(), "boxes": boxes, "annotation": name}


def _parsed(path: Path) -> ET.Element:
    data = path.read_bytes()
    if any(mark in data for mark in (b"<!DOCTYPE", b"<!ENTITY")):
        raise DataError(f"{path}: declares a document type, which can name other files and grow without end; remove it")
    try:
        root = ET.fromstring(data)  # noqa: S314  (without entities, which are refused above)
    except ET.ParseError as error:
        raise DataError(f"{path}: is no XML ({error}); save it again") from error
    if root.tag != "annotation":
        raise DataError(f"{path}: begins with <{root.tag}>, and Pascal VOC's files with <annotation>; remove or convert it")
    return root


def _image(root: ET.Element, path: Path, images: dict[str, list[Path]]) -> Path:
    """Returns the file that `filename` names; of several, that in the folder which `folder` names, or the nearest."""
    said = (root.findtext("filename") or "").strip()
    found = images.get(Path(said).name, [])
    if len(found) > 1:
        beside = [each for each in found if each.parent.name == (root.findtext("folder") or "").strip()]
        beside = beside or [each for each in found if path.parent in each.parents]
        found = beside or [each for each in found if path.parent.parent in each.parents]
    if len(found) != 1:
        what = f"{len(found)} images have that name" if found else "no image below the folder has that name"
        raise DataError(f"{path}: filename {said!r}: {what}; correct it, or put the image there")
    return found[0]


def _box(element: ET.Element, name: str) -> dict[str, Any]:
    """Returns a box; what is missing or no number stays so, and is reported with its row."""
    edges: dict[str, Any] = {to: (element.findtext(f"bndbox/{of}") or "").strip() for to, of in EDGES.items()}
    for edge in ("x_min", "y_min"):
        try:
            edges[edge] = float(edges[edge]) - FIRST
        except ValueError:
            continue
    return {**edges, "label": (element.findtext("name") or "").strip(), "where": name}
