"""Regions of pixels as COCO writes them, polygons and run lengths: read, checked and drawn as pycocotools does.

A segmentation is a list of polygons, each [x, y, x, y, ...] in pixels, whose pixels belong to the region if they lie in any of
them; or run lengths {size: [height, width], counts: ...}: how many pixels, column by column, are outside, inside, outside, ...,
as numbers or as the text that pycocotools writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # (height, width)
SLACK = 1.0  # pixels that a point may lie outside: rounding
MOST_PIXELS = 178_000_000  # of an image: Pillow itself decodes no more
FINER = 5  # steps of a pixel in which pycocotools walks along a polygon
FORM = "polygons [[x, y, x, y, ...], ...] or run lengths {size: [height, width], counts: [...]}"


class RegionError(Exception):
    """A segmentation that is none; the message says why and what to do, after what it is called."""


def drawn(segmentation: Any, width: int, height: int, *, shares: bool = False) -> Mask:
    """Returns which pixels of an image belong to a region, (height, width); points of polygons may be `shares` of its sides.

    Raises:
        RegionError: it is no segmentation, of another image's size, reaches outside, or has no pixel.
    """
    if isinstance(segmentation, Mapping):
        found = _of_runs(segmentation)
        if found.shape != (height, width):
            raise RegionError(
                f"has the size {found.shape[1]} x {found.shape[0]} and its image {width} x {height} pixels; write run"
                " lengths of the image as it is"
            )
    else:
        found = np.zeros((height, width), dtype=bool)
        for given in _polygons(segmentation):
            points = given * (width, height) if shares else given
            low, high = points.min(axis=0), points.max(axis=0)
            if low.min() < -SLACK or high[0] > width + SLACK or high[1] > height + SLACK:
                raise RegionError(
                    f"has points ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}) outside the image of {width} x {height}"
                    " pixels; correct it"
                )
            found |= _inside(points, width, height)
    if not found.any():
        raise RegionError("covers no pixel; remove it")
    return found


def bounds(segmentation: Any) -> tuple[float, float, float, float]:
    """Returns the edges of the box around a region: left, top, right, bottom.

    Raises:
        RegionError: it is no segmentation.
    """
    if isinstance(segmentation, Mapping):
        found = _of_runs(segmentation)
        rows, columns = (np.nonzero(found.any(axis=axis))[0] for axis in (1, 0))
        if not len(rows):
            raise RegionError("covers no pixel; remove it")
        return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
    points = np.concatenate(_polygons(segmentation))
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return left, top, right, bottom


def runs(mask: Mask) -> dict[str, Any]:
    """Returns a mask as run lengths."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return {"size": [*map(int, mask.shape)], "counts": [0, *counts] if flat.size and flat[0] else counts}


def _polygons(given: Any) -> list[NDArray[np.float64]]:
    """Returns the points (points, 2) of each polygon."""
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise RegionError(f"is neither polygons nor run lengths ({str(given)[:60]}); write {FORM}")
    found = []
    for polygon in given:
        if not isinstance(polygon, Sequence) or isinstance(polygon, str):
            raise RegionError(f"is a flat list of numbers or something else ({str(given)[:60]}); write {FORM}")
        if len(polygon) < 6 or len(polygon) % 2:
            raise RegionError(f"has a polygon of {len(polygon)} numbers; a polygon has an even number of them, six at least")
        try:
            numbers = [float(str(each)) for each in polygon]
        except ValueError as error:
            raise RegionError(f"has something that is no number ({error}); correct it") from error
        if not all(map(math.isfinite, numbers)):
            raise RegionError("has something that is no number (NaN or infinity); correct it")
        found.append(np.reshape(numbers, (-1, 2)))
    return found


def _of_runs(given: Mapping[str, Any]) -> Mask:
    try:
        height, width = (int(each) for each in given["size"])
        counts = given["counts"]
        counts = _uncompressed(counts) if isinstance(counts, str) else [int(each) for each in counts]
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise RegionError(
            f"is no run lengths ({type(error).__name__}: {error}); write {{size: [height, width], counts}}"
        ) from error
    if min([height, width, *counts]) < 0 or sum(counts) != height * width:
        raise RegionError(f"has counts that add up to {sum(counts)}, and {height * width} pixels; write it again")
    if height * width > MOST_PIXELS:
        raise RegionError(f"has {height * width:,} pixels, more than {MOST_PIXELS:,}; make the image smaller")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape((height, width), order="F")


def _uncompressed(text: str) -> list[int]:
    """Reads pycocotools' text: six bits a character, one of which says that more follow; differences from the last but one."""
    found: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            value |= (bits & 0x1F) << shift
            more, place, shift = bool(bits & 0x20), place + 1, shift + 5
            if not more and bits & 0x10:
                value -= 1 << shift
        found.append(value + (found[-2] if len(found) > 2 else 0))
    return found


def _inside(points: NDArray[np.float64], width: int, height: int) -> Mask:
    """Returns the pixels inside a polygon, to the pixel those of pycocotools' `rleFrPoly` (Lin et al., 2014)."""
    corners = (FINER * points + 0.5).astype(np.int64)
    walk = np.concatenate([_line(a, b) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)])
    before, after = walk[:-1], walk[1:]
    crossing = before[:, 0] != after[:, 0]
    before, after = before[crossing], after[crossing]
    x = (np.where(after[:, 0] < before[:, 0], after[:, 0], after[:, 0] - 1) + 0.5) / FINER - 0.5
    y = np.ceil(np.clip((np.minimum(before[:, 1], after[:, 1]) + 0.5) / FINER - 0.5, 0, height))
    kept = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
    places = (x[kept] * height + y[kept]).astype(np.int64)
    turns = np.bincount(places, minlength=width * height + 1)[: width * height]
    found: Mask = (np.cumsum(turns) % 2 == 1).reshape((height, width), order="F")
    return found


def _line(start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the points from one corner to the next, one a step of the longer side, (points, 2)."""
    along = int(abs(end[1] - start[1]) > abs(end[0] - start[0]))
    turned = start[along] > end[along]
    low, high = (end, start) if turned else (start, end)
    steps = np.arange(high[along] - low[along] + 1)
    slope = (high[1 - along] - low[1 - along]) / max(1, high[along] - low[along])
    found = np.empty((len(steps), 2), dtype=np.int64)
    found[:, along] = low[along] + steps
    found[:, 1 - along] = (low[1 - along] + slope * steps + 0.5).astype(np.int64)
    return found[::-1] if turned else found
