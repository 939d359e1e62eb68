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
