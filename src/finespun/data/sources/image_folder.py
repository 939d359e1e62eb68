"""A folder of images, or of recordings, as rows: each file, and the name of the sub-folder that is its label."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from finespun.errors import DataError, listed

ENDINGS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
SOUNDS = (".aif", ".aiff", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")
SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


def files(folder: Path) -> Iterator[Path]:
    """Yields every file below a folder in the order of names, through links too; what is hidden is nobody's data.

    Files of unknown kind and links that lead nowhere are among them: whoever reads them says so.
    """
    seen = set()
    for name, folders, names in os.walk(folder, followlinks=True):
        here = Path(name).resolve()
        if here in seen:
            folders.clear()  # a link that leads back
            continue
        seen.add(here)
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        yield from (Path(name) / each for each in sorted(names) if not each.startswith("."))


def is_image(path: Path) -> bool:
    """Whether a file's ending is that of an image."""
    return path.suffix.lower() in ENDINGS


def is_sound(path: Path) -> bool:
    """Whether a file's ending is that of a recording."""
    return path.suffix.lower() in SOUNDS


def rows(folder: Path) -> Iterator[dict[str, str]]:
    """Yields `file`, relative to the folder, and `folder`, the sub-folder of the first level that it lies in.

    Raises:
        DataError: there is neither an image nor a recording, a file lies in no sub-folder, or the sub-folders are splits, not
            labels.
    """
    found = False
    tops = {each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")}
    if tops and {each.lower() for each in tops} <= SPLIT_NAMES:
        raise DataError(
            f"{folder}: its sub-folders {listed(tops)} are splits, not labels; finespun splits by what is in the files:"
            " put all of them into one folder a label, or set data.path to one of these"
        )
    for path in files(folder):
        inside = path.relative_to(folder)
        if len(inside.parts) == 1:
            raise DataError(
                f"{folder}: {inside} lies in no sub-folder, whose name would be its label; move it into one, or write a table"
                " of paths and labels"
            )
        found = found or is_image(inside) or is_sound(inside)
        yield {"file": inside.as_posix(), "folder": inside.parts[0]}
    if not found:
        raise DataError(
            f"{folder}: holds no image ({listed(ENDINGS)}) and no recording ({listed(SOUNDS)}); put a sub-folder of them for"
            " each label into it"
        )
