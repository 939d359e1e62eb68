"""What one cell of a table says: a text, a list that stands there as text, a label's name, yes or no."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

MISSING = {"None", "nan", "<NA>", "NaT"}  # as text, the values by which Python, NumPy and pandas say that there is none
LONGEST_LIST = 1_000_000  # characters
DEEPEST_LIST = 8  # brackets in brackets
OPENING, CLOSING = "[({", "])}"
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no", ""}
KEPT_FORMATS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # inside emoji and words of some scripts


def as_text(value: Any) -> Any:
    """Returns a value as text; lists (also NumPy's arrays) become lists of texts, objects stay objects.

    Whole numbers are written without a fraction, truth values as JSON writes them, bytes are read as UTF-8 (others stay bytes).
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return [as_text(each) for each in value]
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    if isinstance(value, dict | str | bytes):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "" if text in MISSING else text


def is_blank(text: str) -> bool:
    """Whether a text has nothing that could be seen: spaces, control characters and zero-width characters alone."""
    return all(unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Zs"} for character in text)


def label_name(text: str) -> str:
    """Returns a label as it is compared: composed (NFC), single plain spaces, no zero-width or control characters."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    composed = " ".join(unicodedata.normalize("NFC", text).split())  # the no-break space counts as a space
    kept = [each for each in composed if each in KEPT_FORMATS or unicodedata.category(each) not in {"Cc", "Cf"}]
    return "".join(kept).strip(f" {KEPT_FORMATS}")


def folded(name: str) -> str:
    """Returns what names that look alike have in common: no case, no blanks, one Unicode form, a number's value."""
    plain = "".join(unicodedata.normalize("NFKC", label_name(name)).casefold().split())
    return repr(float(plain)) if NUMBER.fullmatch(plain) else plain


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Returns groups of labels that differ by case, blanks, the Unicode form of a letter, or as `1` and `1.0` do."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(folded(name), []).append(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def in_order(names: Iterable[str]) -> list[str]:
    """Returns labels sorted: by value where all are numbers (2 before 10), else as texts."""
    known = list(names)
    numbers = all(NUMBER.fullmatch(name) for name in known)
    return sorted(known, key=lambda name: (float(name), name)) if numbers else sorted(known)


def is_list(text: str) -> bool:
    """Whether a text looks like a list in the notation of JSON, Python or NumPy."""
    text = text.strip()
    return len(text) > 1 and text[0] in "[(" and text[-1] == CLOSING[OPENING.index(text[0])] and _holds_values(text[1:-1])


def _holds_values(inside: str) -> bool:
    first = inside.strip()[:1]
    return first in {"", "'", '"', "{", "["} or bool(NUMBER.match(inside.strip()))


def read_list(text: str) -> list[Any]:
    """Reads a list that stands in a cell as text; nothing in it is run.

    Raises:
        ValueError: it is too long or too deep, or not a list of plain values.
    """
    if len(text) > LONGEST_LIST:
        raise ValueError(f"has {len(text):,} characters, more than {LONGEST_LIST:,}")
    if _depth(text) > DEEPEST_LIST:
        raise ValueError(f"has more than {DEEPEST_LIST} brackets in brackets")
    try:
        return list(json.loads(text))
    except ValueError:
        pass
    return _read_python(text.strip())


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in OPENING) - (character in CLOSING)
        deepest = max(deepest, depth)
    return deepest


def _read_python(text: str) -> list[Any]:
    """Reads the notation of Python; of two texts without a comma between them, which Python would join, NumPy means two."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        parts, last = [], 0
        for token in tokens:
            if token.type in {tokenize.STRING, tokenize.NUMBER, tokenize.NAME}:
                parts.append("," if last in {tokenize.STRING, tokenize.NUMBER} else "")
            if token.type not in {tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.COMMENT}:
                parts.append(f"{token.string} ")
                last = token.type
        return list(ast.literal_eval("".join(parts)))
    except (tokenize.TokenError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"is no list that can be read ({type(error).__name__})") from error


def yes_or_no(text: str) -> bool | None:
    """Returns what a column of 0 and 1 (true and false, yes and no; empty is no) says; None where it says something else."""
    word = text.strip().lower()
    return True if word in YES else False if word in NO else None


def number_problem(text: str) -> str | None:
    """Returns why a text is not a plain number, with what may have been meant; None where it is one."""
    plain = text.strip()
    if NUMBER.fullmatch(plain):
        return None if math.isfinite(float(plain)) else "is too large for a number"
    if "," in plain and NUMBER.fullmatch(plain.replace(",", ".", 1)):
        decimal, thousands = plain.replace(",", "."), plain.replace(",", "")
        return f"has a comma: write {decimal} if it divides the fraction, {thousands} if it groups thousands"
    for mark, name in ((",", "commas"), ("_", "underscores"), (" ", "spaces"), ("\N{NO-BREAK SPACE}", "spaces")):
        if mark in plain and NUMBER.fullmatch(plain.replace(mark, "")):
            return f"groups its digits with {name}; write {plain.replace(mark, '')}"
    return "is not a number"
