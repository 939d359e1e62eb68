"""Looking at a file or folder: how it is read, how many rows it has, and some of them, evenly spread."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finespun.data.sources import tables
from finespun.data.sources.dialect import SAMPLE, dialect_of, encoding_of
from finespun.data.sources.tables import Line, Row
from finespun.errors import DataError

MOST = 8_192  # rows that are kept
TABLES = {".csv", ".tsv", ".tab", ".txt", ".data", ".dat", ""}
SPACES = re.compile(r"[ \t]+")
TAG = re.compile(r"O|[BILUSE]-\S+")


@dataclass(kw_only=True)
class Seen:
    """A source: the keys of `conf/data` that it needs beside columns, its rows, and what was found out of how it is written."""

    settings: dict[str, Any]
    rows: list[Row]
    count: int
    kind: str
    reasons: dict[str, str] = field(default_factory=dict)  # of settings


def look(path: Path) -> Seen:
    """Reads a file or folder once.

    Raises:
        DataError: it cannot be read, or holds no rows.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; correct the path")
    settings, reasons = _settings(path)
    rows, count = _spread(tables.read(path, **{_argument(name): value for name, value in settings.items()}))
    if not count:
        raise DataError(f"{path}: holds no rows; put your rows into it")
    kind = tables.format_of(path, settings.get("format"))
    return Seen(settings=settings, rows=rows, count=count, kind=kind, reasons=reasons)


def _argument(setting: str) -> str:
    return {"format": "file_format"}.get(setting, setting)


def _settings(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns what must be said of a file, so that it can be read, and why."""
    if path.is_dir() or path.suffix.lower() not in TABLES | {".jsonl", ".ndjson", ".conll", ".conllu", ".bio"}:
        return {}, {}
    with path.open("rb") as file:
        sample = file.read(SAMPLE)
    settings: dict[str, Any] = {}
    encoding = encoding_of(sample)
    if encoding != "utf-8":
        settings["encoding"] = encoding
    if path.suffix.lower() in TABLES:
        settings |= _as_table(path, sample)
    reasons = dict.fromkeys(settings, "found in the file")
    if settings.get("encoding") in {"cp1252", "latin-1", "cp1251"}:
        reasons["encoding"] = "likely: the file is not UTF-8; look whether letters beyond a to z are right"
    return settings, reasons


def _as_table(path: Path, sample: bytes) -> dict[str, Any]:
    text = sample.decode(encoding_of(sample), errors="replace")
    if path.suffix.lower() not in {".csv", ".tsv"} and _is_conll(text):
        return {"format": "conll"}
    found = dialect_of(sample, whole=len(sample) < SAMPLE)
    settings: dict[str, Any] = {}
    if path.suffix.lower() not in {".csv", ".tsv"}:
        settings["format"] = "csv"
    if found.delimiter != ("\t" if path.suffix.lower() == ".tsv" else ","):
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
