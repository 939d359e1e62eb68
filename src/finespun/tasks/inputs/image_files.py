"""Pixels of prepared rows: kept beside them, or decoded from their files again, in the way that is written down in the row."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from finespun.data import images
from finespun.errors import DataError
from finespun.tasks.inputs.image_encoder import ImageEncoder, Pixels

FILE = "file"  # column: how pixels are made that are not kept, as JSON
CHANGED = "has changed since `prepare` read it; run `dvc repro` again"


def written_down(
    name: str, places: images.Places, encoder: ImageEncoder, *, max_pixels: int
) -> tuple[str, tuple[int, int]]:  # fmt: skip
    """Returns how the pixels of an image are made, as JSON, and (width, height) of it; nothing is decoded.

    Raises:
        UnreadableError: the file is not there, or is no image.
    """
    data = images.file_bytes(name, places, max_pixels=max_pixels)
    path = images.locate(name, places).absolute()
    steps = {"resize": encoder.resize, "crop": encoder.crop, "resample": encoder.resample, "letterbox": encoder.letterbox}
    inside = path.is_relative_to(Path.cwd())  # a project can move
    said = {
        "path": os.path.relpath(path) if inside else str(path),
        "crc32": zlib.crc32(data),
        "max_pixels": max_pixels,
        **steps,
    }
    return json.dumps(said), images.size_of(data, max_pixels=max_pixels)


def pixels_of(row: Mapping[str, Any]) -> Pixels:
    """Returns the pixels of a prepared row, (height, width, 3).

    Raises:
        DataError: they are not kept, and the file is not there or not the one that was prepared.
    """
    if row.get("pixels") is not None:
        return np.frombuffer(row["pixels"], np.uint8).reshape(row["height"], -1, 3)
    said = json.loads(row[FILE])
    path, most = Path(said.pop("path")), said.pop("max_pixels")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), and its pixels are not kept; {CHANGED}") from error
    if zlib.crc32(data) != said.pop("crc32"):
        raise DataError(f"{path}: {CHANGED}")
    sizes = {name: tuple(said[name]) if isinstance(said[name], list) else said[name] for name in ("resize", "crop")}
    encoder = ImageEncoder(**(said | sizes), table=np.empty((0, 3), np.float32), mean=(), std=(), changes={})
    found = images.decode(data, max_pixels=most, wanted=encoder.resized)
    return encoder.pixels(*found[:3])
