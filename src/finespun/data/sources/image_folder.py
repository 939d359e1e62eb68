"""A folder of images, of recordings, or of texts, as rows: each file, and the name of the sub-folder that is its label."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from finespun.errors import DataError, listed

ENDINGS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
TEXT = ".txt"
SOUNDS = (".aif", ".aiff", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")
OF_SYSTEMS = {"thumbs.db", "desktop.ini"}  # that Windows puts beside images
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
        yield from (Path(name) / each for each in sorted(names) if not each.startswith(".") and each.lower() not in OF_SYSTEMS)


def is_image(path: Path) -> bool:
    """Whether a file's ending is that of an image."""
    return path.suffix.lower() in ENDINGS


def is_sound(path: Path) -> bool:
    """Whether a file's ending is that of a recording."""
    return path.suffix.lower() in SOUNDS


def is_item(path: Path) -> bool:
    """Whether a file's ending is that of an image, a recording, or a text."""
    return path.suffix.lower() in {*ENDINGS, *SOUNDS, TEXT}


def rows(folder: Path, encoding: str | None = None) -> Iterator[dict[str, str]]:
    """Yields `file`, relative to the folder, and `folder`, the sub-folder of the first level that it lies in; of texts, `text`.

    Raises:
        DataError: there is no such file, one lies in no sub-folder, or the sub-folders are splits and not labels.
    """
    texts = _holds_texts(folder)
    wanted = (TEXT,) if texts else (*ENDINGS, *SOUNDS)
    found = False
    tops = {each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")}
    if tops and {each.lower() for each in tops} <= SPLIT_NAMES:
        raise DataError(
            f"{folder}: its sub-folders {listed(tops)} are splits, not labels; name them as ready splits"
            " (path: {train: FOLDER, test: FOLDER}), or put all files into one folder a label"
        )
    for path in files(folder):
        inside = path.relative_to(folder)
        if len(inside.parts) == 1:
            remedy = "move it into one, or write a table of paths and labels"
            if inside.suffix.lower() not in wanted:
                remedy = f"it is none of {listed(wanted)}: remove it, or name a table"
            raise DataError(f"{folder}: {inside} lies in no sub-folder, whose name would be its label; {remedy}")
        found = found or inside.suffix.lower() in wanted
        row = {"file": inside.as_posix(), "folder": inside.parts[0]}
        yield row | {"text": _read(path, encoding)} if texts else row
    if not found:
        raise DataError(
            f"{folder}: holds no image ({listed(ENDINGS)}) and no recording ({listed(SOUNDS)}); put a sub-folder of them for"
            " each label into it"
        )


def _holds_texts(folder: Path) -> bool:
    """Whether the first file below a folder's sub-folders is a text."""
    first = next((path for path in files(folder) if path.parent != folder), None)
    return first is not None and first.suffix.lower() == TEXT


def _read(path: Path, encoding: str | None) -> str:
    if path.suffix.lower() != TEXT:
        raise DataError(f"{path}: is no text ({TEXT}), as the other files of its folder are; remove it")
    try:
        return path.read_text(encoding or "utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x} is not {encoding or 'utf-8'}"
        raise DataError(f"{path}: {byte}; save it as UTF-8, or set data.encoding") from error
