"""Looking at a file or folder: how it is read, how many rows it has, and some of them, evenly spread."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finespun.config.sections import DataConfig
from finespun.data.sources import arrow, image_folder, opening, tables
from finespun.data.sources.dialect import SAMPLE, dialect_of, encoding_of
from finespun.data.sources.source import Source
from finespun.data.sources.tables import Line, Row
from finespun.data.splits import SPLITS, given_split
from finespun.errors import DataError, listed

MOST = 8_192  # rows that are kept
UNKNOWN = {".tab", ".txt", ".data", ".dat", ""}  # endings that do not say what a file holds
PLAIN = {".csv", ".tsv", *UNKNOWN}
TEXTS = {*PLAIN, ".jsonl", ".ndjson", ".json", ".conll", ".conllu", ".bio"}
SPACES = re.compile(r"[ \t]+")
TAG = re.compile(r"O|[BILUSE]-\S+")


@dataclass(kw_only=True)
class Seen:
    """A source: the keys of `conf/data` that it needs beside columns, its rows, and what was found out of how it is written.

    `parts` are the files of a folder, by split where their names say so, relative to it; empty: it is read as it is.
    """

    settings: dict[str, Any]
    rows: list[Row]
    count: int
    kind: str
    reasons: dict[str, str] = field(default_factory=dict)  # of settings
    parts: dict[str, str] | str = ""


def look(path: Path) -> Seen:
    """Reads a file or folder once.

    Raises:
        DataError: it cannot be read, or holds no rows.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; correct the path")
    path = path.absolute()
    parts = _parts(path) if path.is_dir() else ""
    given = {split: str(path / part) for split, part in parts.items()} if isinstance(parts, dict) else str(path / parts)
    first = Path(opening.expanded(next(iter(given.values())) if isinstance(given, dict) else given, path.parent)[0])
    settings, reasons = _settings(first)
    columns = {"split": "(split)"} if path.is_dir() and (path / arrow.SPLITS).is_file() else {}
    source = Source(DataConfig.model_validate({"path": given, "columns": columns, **settings}), path.parent)
    rows, count = _spread(source())
    if not count:
        raise DataError(f"{path}: holds no rows; put your rows into it")
    kind = _kind(first, settings)
    if kind == "images" and "text" in rows[0]:
        kind = "texts"
    elif kind == "images" and any(image_folder.is_sound(Path(row["file"])) for row in rows):
        kind = "recordings"
    return Seen(settings=settings, rows=rows, count=count, kind=kind, reasons=reasons, parts=parts)


def _kind(first: Path, settings: dict[str, Any]) -> str:
    name = str(first).partition("::")[0] if opening.is_remote(str(first)) else first
    return tables.format_of(name, settings.get("format"))


def _parts(folder: Path) -> dict[str, str] | str:
    """Returns what of a folder is read: files or folders by split, a pattern of files, '' for the folder itself."""
    if arrow.is_saved(folder):
        return ""
    inside = sorted(each for each in folder.iterdir() if not each.name.startswith((".", "README", "LICENSE")))
    files = [each for each in inside if each.is_file() and opening.suffix(each.name) in {*tables.FORMATS, *tables.READ_ONLY}]
    if any(image_folder.is_item(each) for each in image_folder.files(folder)):
        return _by_split([each for each in inside if each.is_dir()]) if not files else ""
    if not files:
        return ""
    by_split = _by_split(files) if len(files) > 1 else ""
    return by_split or ("" if {opening.suffix(each.name) for each in files} == {".parquet"} else _pattern(files))


def _by_split(paths: list[Path]) -> dict[str, str] | str:
    """Returns patterns by split, where all paths begin with the name of one, and there are two splits or more."""
    named: dict[str, list[Path]] = {}
    for path in paths:
        code = given_split(re.split(r"[-_.]", path.name)[0])
        if code is None:
            return ""
        named.setdefault(SPLITS[code], []).append(path)
    return {split: _pattern(mine) for split, mine in named.items()} if len(named) > 1 else ""


def _pattern(files: list[Path]) -> str:
    """Returns a pattern for files of one ending.

    Raises:
        DataError: they have several.
    """
    if len(files) == 1:
        return files[0].name
    endings = {"".join(each.suffixes[-2:]) if each.suffix in opening.COMPRESSED else each.suffix for each in files}
    if len(endings) > 1:
        raise DataError(f"{files[0].parent}: holds files of several kinds ({listed(endings)}); name one of them")
    start = "train" if all(each.name.startswith("train") for each in files) else ""
    return f"{start}*{endings.pop()}"


def _settings(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns what must be said of a file, so that it can be read, and why."""
    ending = opening.suffix(str(path))
    if opening.is_remote(str(path)) or path.is_dir() or ending not in TEXTS:
        return {}, {}
    sample, whole = opening.beginning(str(path), SAMPLE)
    settings: dict[str, Any] = {}
    encoding = encoding_of(sample)
    if encoding != "utf-8":
        settings["encoding"] = encoding
    if ending in PLAIN:
        settings |= _as_table(ending, sample, whole=whole)
    reasons = dict.fromkeys(settings, "found in the file")
    if settings.get("encoding") in {"cp1252", "latin-1", "cp1251"}:
        reasons["encoding"] = "likely: the file is not UTF-8; look whether letters beyond a to z are right"
    return settings, reasons


def _as_table(ending: str, sample: bytes, *, whole: bool) -> dict[str, Any]:
    if ending in UNKNOWN and _is_conll(sample.decode(encoding_of(sample), errors="replace")):
        return {"format": "conll"}
    found = dialect_of(sample, whole=whole)
    settings: dict[str, Any] = {"format": "csv"} if ending in UNKNOWN else {}
    if found.delimiter != ("\t" if ending == ".tsv" else ","):
        settings["delimiter"] = found.delimiter
    if found.quoting != "auto":
        settings["quoting"] = found.quoting
    if not found.header:
        settings["header"] = False
    return settings


def _is_conll(text: str) -> bool:
    """Whether lines are words with tags, and empty lines divide sentences."""
    lines = text.splitlines()[:2_000]
    words = [SPACES.split(line.strip()) for line in lines if line.strip() and not line.startswith(("#", "-DOCSTART-"))]
    if len(words) < 3 or len(words) == len(lines):
        return False
    widths = {len(word) for word in words}
    return len(widths) == 1 and widths.pop() >= 2 and all(TAG.fullmatch(word[-1]) or len(word) > 3 for word in words)


def _spread(lines: Iterator[Line]) -> tuple[list[Row], int]:
    """Returns rows evenly spread over all, and how many there are: sorted files show all of their labels."""
    kept: list[Row] = []
    step, count = 1, 0
    for line in lines:
        if count % step == 0:
            kept.append(line.row)
            if len(kept) == MOST:
                kept, step = kept[::2], step * 2
        count += 1
    return kept, count
