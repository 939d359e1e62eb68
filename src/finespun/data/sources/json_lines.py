"""JSON Lines as rows: an object a line; what is none says what it is instead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from finespun.errors import DataError

ARRAY = "a file of one array is JSON: call it .json, or set data.format: json (predict --format json)"


def rows(lines: Iterator[str], name: str, *, lenient: bool = False) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Yields the line of each object, its values by key, and (if `lenient`) why it has none.

    Empty lines and byte order marks are no rows.

    Raises:
        DataError: a line is not one object, or says a key twice, and `lenient` is not set.
    """
    for number, line in enumerate(lines, 1):
        text = line.strip("\ufeff \t\r\n")
        row, problem = {}, ""
        try:
            row = _object(text, f"{name}:{number}") if text else {}
        except DataError as error:
            if not lenient:
                raise
            problem = str(error).removeprefix(f"{name}:")
        if text:
            yield number, row, problem and f"line {problem}"


def _object(text: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(text, object_pairs_hook=_once)
        if "\\ud" in text.lower():  # half a character: where its other half is missing, it is none
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start : error.end]
        raise DataError(f"{place}: {half!r} is half a character; remove it, or write its other half") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: is not JSON ({error.msg} at column {error.colno}); {_remedy(text)}") from error
    except RecursionError as error:
        raise DataError(f"{place}: has too many brackets in brackets; write plain values") from error
    except KeyError as error:
        raise DataError(f"{place}: says the key {error} twice; remove one") from error
    except ValueError as error:
        raise DataError(f"{place}: holds a number of thousands of digits; write it as text, or shorter") from error
    if isinstance(row, dict):
        return row
    remedy = ARRAY if isinstance(row, list) else 'write {"column": value, ...}'
    raise DataError(f"{place}: holds {type(row).__name__}, not an object; {remedy}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise KeyError(twice)
    return found


def _remedy(text: str) -> str:
    if text.endswith(","):
        return "remove the comma at the line's end: one object a line"
    if text[:1] == "[" or text in ("{", "}", "]"):
        return f"one object a line; {ARRAY}"
    return "one object a line"
