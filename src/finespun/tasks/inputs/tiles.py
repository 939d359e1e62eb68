"""Large images in overlapping tiles, and what was found in tiles as one answer again. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finespun.tasks.metrics.detection import overlaps

OVERLAP = 0.25  # of a tile's side that its neighbour has too, at least
SAME = 0.5  # intersection over union from which boxes of neighbouring tiles are one
PART = 0.8  # of the smaller box inside the larger: what is left of an object at the edge of its tile


class Tile(NamedTuple):
    """Edges of a part of an image, in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.right - self.left, self.bottom - self.top


def tiles_of(size: tuple[int, int], side: int) -> list[Tile]:
    """Returns the tiles of an image of (width, height), row by row: of `side` pixels, or as small as the image is."""
    (lefts, width), (tops, height) = (_starts(length, side) for length in size)
    return [Tile(left, top, left + width, top + height) for top in tops for left in lefts]


def _starts(length: int, side: int) -> tuple[list[int], int]:
    """Returns where tiles begin along a side of an image, evenly spread, and how long they are."""
    if length <= side:
        return [0], length
    count = 1 + -(-(length - side) // max(1, side - round(OVERLAP * side)))
    return [round(place * (length - side) / (count - 1)) for place in range(count)], side


def joined_boxes(found: Sequence[NDArray[np.float64]], tiles: Sequence[Tile], size: tuple[int, int]) -> NDArray[np.float64]:
    """Returns detections of an image, the highest scores first; of boxes of several tiles that are one, that with the highest.

    Args:
        found: of each tile, (boxes, 6): label, score, edges as shares of the tile.
        tiles: where they lie.
        size: width and height of the image, of which the result's edges are shares.
    """
    placed = [
        np.column_stack([each[:, :2], each[:, 2:] * np.tile(tile.size, 2) + np.tile(tile[:2], 2)])
        for each, tile in zip(found, tiles, strict=True)
    ]
    boxes = np.concatenate(placed)
    owner = np.repeat(np.arange(len(placed)), [len(each) for each in placed])
    order = np.argsort(-boxes[:, 1], kind="stable")
    boxes, owner = boxes[order], owner[order]
    edges = boxes[:, 2:]
    area = np.clip(edges[:, 2:] - edges[:, :2], 0, None).prod(axis=1)
    kept: list[int] = []
    for place in range(len(boxes)):
        others = [each for each in kept if owner[each] != owner[place] and boxes[each, 0] == boxes[place, 0]]
        iou = overlaps(edges[[place]], edges[others], np.zeros(len(others), dtype=bool))[0]
        both = iou / (1 + iou) * (area[place] + area[others])
        if not ((iou >= SAME) | (both >= PART * np.minimum(area[place], area[others]))).any():
            kept.append(place)
    boxes[:, 2:] /= np.tile(size, 2)
    return boxes[kept]


def joined_mask(found: Sequence[NDArray[np.uint8]], tiles: Sequence[Tile], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns the mask of an image, (height, width): each pixel as the tile says whose middle is nearest.

    Args:
        found: of each tile, (its height, its width).
        tiles: where they lie.
        size: width and height of the image.
    """
    whole = np.zeros((size[1], size[0]), dtype=np.uint8)
    nearest = np.full(whole.shape, np.inf)
    for mask, tile in zip(found, tiles, strict=True):
        part = np.s_[tile.top : tile.bottom, tile.left : tile.right]
        across, down = (abs(np.arange(length) - (length - 1) / 2) for length in tile.size)
        distance = np.maximum(down[:, None] / tile.size[1], across[None] / tile.size[0])
        nearer = distance < nearest[part]
        whole[part][nearer], nearest[part][nearer] = mask[nearer], distance[nearer]
    return whole
