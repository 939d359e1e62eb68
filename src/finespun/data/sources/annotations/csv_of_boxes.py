"""CSV with a row a box, as rows of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from finespun.errors import DataError, listed

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
        box = {role: row[columns[role]] for role in (*EDGES, "label")} | {"where": f"line {number}"}
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
