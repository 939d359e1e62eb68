"""Boxes and masks drawn on images, and the pictures of `finespun predict --draw`."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from finespun.data import images
from finespun.tasks.answers.masks import palette
from finespun.tasks.answers.pixels import IGNORED

MOST_PIXELS = 178_000_000  # the image was decoded before, within the task's own limit
WARM, COLD = (220, 38, 38), (37, 99, 235)
HEAT_SIDE = 96  # pixels that a picture with heat has at least
LUMA = (0.299, 0.587, 0.114)
DRAWN = ("boxes", "mask")
CLEAR = (  # to be told apart, and to be seen on dark and on light photographs
    (0, 0, 0), (255, 59, 48), (52, 199, 89), (10, 132, 255), (255, 204, 0), (255, 45, 160), (0, 210, 200), (255, 149, 0),
    (175, 82, 222), (170, 240, 60), (255, 160, 190), (160, 120, 80),
)  # fmt: skip
COLOURS = np.array([*CLEAR, *np.reshape(palette(), (-1, 3))[len(CLEAR) :]], dtype=np.uint8)
UNLABELLED = 224  # grey of pixels that have no class
COVER, COVER_OF_FIRST = 0.55, 0.3  # how much of a mask's colour is seen; of its first class, mostly a background
LETTERS, SMALLEST = 0.75, 8  # height of letters: times the root of an image's longer side, and pixels at least


class Drawer:
    """Writes a picture a row into a folder."""

    def __init__(self, folder: Path, *, labels: Sequence[str], columns: Sequence[str], places: images.Places) -> None:
        """Takes the columns, of which a row has one, of paths of images, and where these are looked for."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.labels, self.columns, self.places = folder, labels, columns, places
        self._used: set[str] = set()

    def draw(self, row: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Writes NAME.png, and NAME_mask.png beside it where the answer is a mask; nothing of a row without an answer."""
        if "error" in answer:
            return
        name = next(str(row[column]) for column in self.columns if column in row)
        image = images.read(name, self.places, max_pixels=MOST_PIXELS).image
        stem = self._free("image" if name.startswith(images.INLINE) else Path(name).stem)
        if "mask" in answer:
            (self.folder / f"{stem}_mask.png").write_bytes(_bytes(answer["mask"]))
            overlaid(image, mask_of(answer["mask"])).save(self.folder / f"{stem}.png")
        else:
            framed(image, answer["boxes"], self.labels).save(self.folder / f"{stem}.png")

    def _free(self, stem: str) -> str:
        """Returns a name that no earlier row has taken."""
        number, found = 1, stem
        while found in self._used:
            number += 1
            found = f"{stem}_{number}"
        self._used.add(found)
        return found


def with_heat(image: Image.Image, scores: Sequence[float], grid: tuple[int, int]) -> Image.Image:
    """Returns a grey copy on which fields of a grid, row by row, are red where they speak for the label and blue against it."""
    heat = np.asarray(scores, dtype=np.float64).reshape(grid)
    heat = heat / (np.abs(heat).max() or 1.0)
    colours = np.where(heat[..., None] > 0, WARM, COLD).astype(np.uint8)
    shown = image.convert("L").convert("RGB")
    shown = shown.resize([max(side, HEAT_SIDE) for side in shown.size], Image.Resampling.BILINEAR)
    layer = Image.fromarray(colours).resize(shown.size, Image.Resampling.NEAREST)
    share = Image.fromarray(np.round(np.abs(heat) * 170).astype(np.uint8)).resize(shown.size, Image.Resampling.BILINEAR)
    return Image.composite(layer, shown, share)


def _bytes(png: str) -> bytes:
    return base64.b64decode(png.partition(",")[2])


def mask_of(png: str) -> NDArray[np.uint8]:
    """Returns the values of a mask that is a PNG as text, (height, width)."""
    return np.asarray(Image.open(io.BytesIO(_bytes(png))))


def overlaid(image: Image.Image, mask: NDArray[np.uint8]) -> Image.Image:
    """Returns an image under the colours of a mask, half transparent; a mask of another size is stretched to it."""
    colours = np.where((mask == IGNORED)[..., None], UNLABELLED, COLOURS[mask]).astype(np.uint8)
    shares = np.where(mask == 0, COVER_OF_FIRST, COVER)
    cover, share = (
        Image.fromarray(each).resize(image.size, Image.Resampling.NEAREST)
        for each in (colours, np.round(255 * shares).astype(np.uint8))
    )
    return Image.composite(cover, image, share)


def framed(image: Image.Image, boxes: Sequence[Mapping[str, Any]], labels: Sequence[str], *, scale: float = 1.0) -> Image.Image:
    """Returns an image with boxes, whose edges are in pixels times `scale`, and their labels; the first ones on top."""
    found = image.copy()
    letters = max(SMALLEST, round(LETTERS * math.sqrt(max(image.size))))
    pen, font = ImageDraw.Draw(found), ImageFont.load_default(letters)
    for box in reversed(boxes):
        red, green, blue = COLOURS[(1 + labels.index(box["label"])) % 256].tolist()
        colour = (red, green, blue)
        left, top, right, bottom = (scale * box[edge] for edge in ("x_min", "y_min", "x_max", "y_max"))
        corners = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        pen.rectangle(corners, outline=colour, width=max(2, letters // 6))
        said = f"{box['label']} {box['score']:.2f}" if "score" in box else box["label"]
        place = max(0, corners[0]), max(0, corners[1])
        pen.rectangle(pen.textbbox(place, f" {said} ", font=font), fill=colour)
        pen.text(place, f" {said} ", font=font, fill="black" if np.dot(colour, LUMA) > 140 else "white")
    return found
