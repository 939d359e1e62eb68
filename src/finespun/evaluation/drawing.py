"""Pictures of predictions that say where: boxes and masks drawn on their images (`finespun predict --draw`)."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from finespun.data import images
from finespun.tasks.answers.masks import palette

MOST_PIXELS = 178_000_000  # the image was decoded before, within the task's own limit
WARM, COLD = (220, 38, 38), (37, 99, 235)
HEAT_SIDE = 96  # pixels that a picture with heat has at least
DRAWN = ("boxes", "mask")


class Drawer:
    """Writes a picture a row into a folder."""

    def __init__(self, folder: Path, *, labels: Sequence[str], columns: Sequence[str], places: images.Places) -> None:
        """Takes the columns, of which a row has one, of paths of images, and where these are looked for."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.labels, self.columns, self.places = folder, labels, columns, places
        self.colours = np.array(palette()).reshape(-1, 3)
        self._used: set[str] = set()

    def draw(self, row: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Writes NAME.png, and NAME_mask.png beside it where the answer is a mask; nothing of a row without an answer."""
        if "error" in answer:
            return
        name = next(str(row[column]) for column in self.columns if column in row)
        image, _ = images.read(name, self.places, max_pixels=MOST_PIXELS)
        stem = self._free("image" if name.startswith(images.INLINE) else Path(name).stem)
        if "mask" in answer:
            data = base64.b64decode(answer["mask"].partition(",")[2])
            (self.folder / f"{stem}_mask.png").write_bytes(data)
            colours = self.colours[np.asarray(Image.open(io.BytesIO(data)))].astype(np.uint8)
            Image.blend(image, Image.fromarray(colours), 0.5).save(self.folder / f"{stem}.png")
            return
        for box in reversed(answer["boxes"]):  # the surest on top
            self._frame(ImageDraw.Draw(image), box)
        image.save(self.folder / f"{stem}.png")

    def _frame(self, pen: ImageDraw.ImageDraw, box: Mapping[str, Any]) -> None:
        red, green, blue = self.colours[1 + self.labels.index(box["label"]) % 255].tolist()
        colour = (red, green, blue)
        place = (box["x_min"], box["y_min"], box["x_max"], box["y_max"])
        corners = (min(place[0], place[2]), min(place[1], place[3]), max(place[0], place[2]), max(place[1], place[3]))
        pen.rectangle(corners, outline=colour, width=2)
        pen.text((corners[0] + 3, corners[1] + 2), f"{box['label']} {box['score']:.2f}", fill=colour)

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
