"""JSON files as rows: an array of objects, read piece by piece; objects of columns; an object that holds the array."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import IO, Any

from finespun.data.sources import json_lines
from finespun.errors import DataError, first_of

BLOCK = 1 << 16  # characters
LONGEST = 16_000_000  # characters of one row
BLANK = " \t\r\n"


def rows(file: IO[str], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number of each row, from 1, and its values by column; JSON Lines too, whatever they are called.

    Raises:
        DataError: it is not JSON, or holds no objects.
    """
    text = ""
    while not text.strip("\ufeff" + BLANK) and (part := file.read(BLOCK)):
        text += part
    text = text.lstrip("\ufeff" + BLANK)
    if not text:
        raise DataError(f"{name}: is empty; put your rows into it")
    if text[0] == "[":
        yield from enumerate(_elements(text[1:], file, name), 1)
        return
    text += file.read()
    lines = text.splitlines()
    if len(lines) > 1 and _is_object(lines[0]):
        for number, row, _ in json_lines.rows(iter(lines), name):
            yield number, row
        return
    yield from enumerate(_of_object(_parsed(text, name), name), 1)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{name}:{error.lineno}: is not JSON ({error.msg} at column {error.colno}); correct it") from error
    except RecursionError as error:
        raise DataError(f"{name}: has too many brackets in brackets; write plain values") from error


def _elements(text: str, file: IO[str], name: str) -> Iterator[dict[str, Any]]:
    """Yields the elements of an array whose first bracket has been read, holding one at a time."""
    decoder, number = json.JSONDecoder(), 0
    while True:
        text = text.lstrip(BLANK + ",")
        if text.startswith("]"):
            return
        try:
            value, end = decoder.raw_decode(text)
            at_end = end == len(text) and not isinstance(value, dict)
        except (ValueError, RecursionError) as error:
            value, end, at_end = error, 0, True
        if at_end:
            part = file.read(max(BLOCK, len(text)))
            if not part or len(text) > LONGEST:
                reason = getattr(value, "msg", "an array that is not closed")
                raise DataError(f"{name}: row {number + 1} is not JSON ({reason}), or the file is cut short; correct it")
            text += part
            continue
        number += 1
        if not isinstance(value, dict):
            raise DataError(f'{name}: row {number} is {type(value).__name__}, not an object; write {{"column": value, ...}}')
        yield value
        text = text[end:]


def _of_object(value: Any, name: str) -> Iterator[dict[str, Any]]:
    """Yields rows of an object: those of its one array of objects, or of columns that are arrays or objects (pandas)."""
    given = value if isinstance(value, dict) else {}
    arrays = [key for key, each in given.items() if isinstance(each, list) and each and isinstance(each[0], dict)]
    if len(arrays) == 1:
        yield from _elements(json.dumps(given[arrays[0]])[1:], io.StringIO(), f"{name}: {arrays[0]}")
        return
    columns = {key: [*each.values()] if isinstance(each, dict) else each for key, each in given.items()}
    lengths = {len(each) if isinstance(each, list) else -1 for each in columns.values()}
    if len(lengths) == 1 and lengths != {-1}:
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))
        return
    said = f"the keys {first_of([*map(str, given)])}" if given else type(value).__name__
    raise DataError(f"{name}: holds {said}, and no array of rows; write [{{...}}, {{...}}], or an object a line (.jsonl)")
