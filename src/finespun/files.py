"""Reading files of finespun's own: whatever is wrong with one becomes an error that names the file and the remedy; copying."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from finespun.errors import FinespunError, listed

CONFLICT = ("<<<<<<<", ">>>>>>>")  # what Git writes into a file that it could not merge
LARGE = 10_000_000  # bytes


def read_json(path: Path, *, error: type[FinespunError], remedy: str, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Reads a JSON object with at least `keys`.

    Raises:
        error: the file is missing, empty, cut short, in conflict, or something else.
    """
    return _read(path, json.loads, error=error, remedy=remedy, keys=keys)


def read_yaml(
    path: Path, *, error: type[FinespunError], remedy: str, keys: Iterable[str] = (),
    loader: type[yaml.SafeLoader] = yaml.SafeLoader,
) -> dict[str, Any]:  # fmt: skip
    """Reads keys with values from YAML; the rest as in `read_json`."""
    return _read(path, lambda text: yaml.load(text, loader), error=error, remedy=remedy, keys=keys)  # noqa: S506  (a SafeLoader)


def read_table(path: Path, columns: Iterable[str], *, error: type[FinespunError], remedy: str) -> list[dict[str, str]]:
    """Reads the rows of a CSV with these columns; the rest as in `read_json`."""

    def parse(text: str) -> dict[str, Any]:
        reader = csv.DictReader(text.splitlines(), strict=True)
        rows = list(reader)
        if rows and (None in rows[-1] or None in rows[-1].values()):
            raise ValueError("its last line is cut short")
        return {"rows": rows} | dict.fromkeys(reader.fieldnames or ())

    read = _read(path, parse, error=error, remedy=remedy, keys=columns)
    return list(read["rows"])


def _read(
    path: Path, parse: Callable[[str], Any], *, error: type[FinespunError], remedy: str, keys: Iterable[str]
) -> dict[str, Any]:  # fmt: skip
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip("\0 \r\n\t"):
            raise error(f"{path}: is empty; {remedy}")
        if any(line.startswith(CONFLICT) for line in text.splitlines()):
            raise error(f"{path}: holds Git's conflict marks ({CONFLICT[0]}); resolve them, or {remedy}")
        content = parse(text)
    except FileNotFoundError as failure:
        raise error(f"{path}: is not there; {remedy}") from failure
    except OSError as failure:
        raise error(f"{path}: cannot be read ({failure.strerror}); correct its permissions, or {remedy}") from failure
    except (ValueError, RecursionError, yaml.YAMLError, csv.Error) as failure:
        reason = " ".join(str(failure).split())[:200]
        raise error(f"{path}: is damaged or cut short ({reason}); {remedy}") from failure
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing or not isinstance(content, dict):
        raise error(f"{path}: is damaged: it lacks {listed(missing) if missing else 'keys with values'}; {remedy}")
    return content


def copy_or_link(source: str | Path, target: str | Path) -> None:
    """Copies a file with its times; a large one becomes a hard link where that can be: neither may be written to in place."""
    if os.stat(source).st_size >= LARGE:  # noqa: PTH116
        with suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return
    shutil.copy2(source, target)
