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
from typing import Any, NamedTuple

MISSING = {"None", "nan", "<NA>", "NaT"}  # as text, the values by which Python, NumPy and pandas say that there is none
LONGEST_LIST = 1_000_000  # characters
DEEPEST_LIST = 8  # brackets in brackets
OPENING, CLOSING = "[({", "])}"
UNSEEN = "\u034f\u115f\u1160\u2800\u3164\ufe0e\ufe0f\uffa0"  # fillers, selectors and the empty pattern of Braille
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
# A number with a sign or a unit beside it: $5, 5 %, 5kg.
UNIT = re.compile(rf"([^0-9.,+()eE-]{{0,3}}\s?)({NUMBER.pattern})\s?([^0-9.,_'()eE\s-][^0-9.,_'()\s-]{{0,3}})?")
YES, NO = {"1", "1.0", "true", "yes", "t", "y", "on", "x"}, {"0", "0.0", "false", "no", "f", "n", "off", ""}
# What begins as the notation of a list or an object in some language: [a, b], {'a', 'b'}, {"a": 1}, array(['a'], dtype=object).
NOTATION = re.compile(r"""(?:[A-Za-z_.]+\()?\(?[\[{]+(?:['"].*|\w.*[,:'"].*[\]})])""", re.DOTALL)
BYTES = re.compile(r"""b(?:'.*'|".*")""", re.DOTALL)
NO_VALUE = {"nan", "NaN", "None", "NULL", "null", "(null)", "NA", "N/A", "n/a", "<NA>", "NaT", "undefined", "\\N"}
NO_VALUE |= {"#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NULL!", "#NUM!"}  # of spreadsheets
# Letters of Cyrillic and Greek that look like Latin ones, dashes, quotes.
LIKE_LATIN = str.maketrans(
    "\u0430\u0441\u0435\u043e\u0440\u0445\u0443\u0456\u0458\u0455\u03bf\u03b1\u03bd\u03c1\u2013\u2014\u2011\u2010\u2019\u2018",
    "aceopxyijsoavp----''",
)
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
    return all(unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Zs"} or character in UNSEEN for character in text)


def unseen_characters(text: str) -> list[str]:
    """Returns code points (U+200B) of a text that nobody sees and no script needs; line ends and tabs are not among them."""
    odd = (each for each in dict.fromkeys(text) if not each.isprintable() and each not in KEPT_FORMATS and not each.isspace())
    return [f"U+{ord(each):04X}" for each in odd if unicodedata.category(each) in {"Cc", "Cf"}]


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
    """Returns groups of labels that are the same `folded`, but for dashes, quotes and letters that look the same; 1 is true."""
    groups: dict[str, list[str]] = {}
    for name in names:
        plain = folded(name).translate(LIKE_LATIN)
        key = re.sub(r"(?<=\w)[_-]+(?=\w)", "", plain.strip("\"'.") or plain)
        key = {"true": "1.0", "false": "0.0", "1": "1.0", "0": "0.0"}.get(key, key)
        groups.setdefault(key, []).append(name)
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
    begins = inside.strip()[:2]
    return begins[:1] in {"", "'", '"', "{", "[", "("} or begins in {"b'", 'b"'} or bool(NUMBER.match(inside.strip()))


def stand_in(text: str) -> tuple[str, str] | None:
    """Returns the check that a text fails which stands for something else, and why; None for other texts."""
    plain = text.strip()
    if BYTES.fullmatch(plain):
        why = "is Python's way to write bytes; decode them (in pandas: column.str.decode('utf-8')) before they are written"
        return "bytes_as_text", f"{why}, or set data.checks.bytes_as_text: warn"
    if plain in NO_VALUE:
        return "no_value", "is how programs write that there is no value; if so, leave it out: data.checks.no_value: drop"
    return None


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
        parts, last = [], 0
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in {tokenize.STRING, tokenize.NUMBER, tokenize.NAME}:
                parts.append("," if last in {tokenize.STRING, tokenize.NUMBER} else "")
            if token.type not in {tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.COMMENT}:
                parts.append(f"{'None' if token.string == 'nan' else token.string} ")
                last = token.type
        values = list(ast.literal_eval("".join(parts)))
    except (tokenize.TokenError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError("is no list in the notation of JSON, Python or NumPy") from error
    if Ellipsis in values:
        raise ValueError("is cut short by '...'")
    return values


class Unclear(NamedTuple):
    """A column of 0 and 1, and a cell of it that says neither."""

    column: str
    cell: Any

    def __str__(self) -> str:
        return f"{self.column}={self.cell}"


def yes_or_no(text: str) -> bool | None:
    """Returns what a column of 0 and 1 (true and false, yes and no, x; empty is no) says; None where it says something else."""
    word = text.strip().lower()
    return True if word in YES else False if word in NO else None


def number_problem(text: str) -> str | None:
    """Returns why a text is not a plain number, with what may have been meant; None where it is one."""
    plain = text.strip()
    if NUMBER.fullmatch(plain):
        return None if math.isfinite(float(plain)) else "is too large for a number"
    meant = "".join(each for each in unicodedata.normalize("NFKC", plain) if unicodedata.category(each) != "Cf").strip()
    meant = meant.replace("\N{MINUS SIGN}", "-").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if NUMBER.fullmatch(meant):
        return f"is not written in plain characters; write {meant}"
    unit = UNIT.fullmatch(meant)
    if unit and (unit[1].strip() or unit[6]):
        return f"has a sign or a unit beside its number; write {unit[2]} alone"
    return _grouped(meant) or "is not a number"


def _grouped(text: str) -> str | None:
    """Returns what is wrong with a number whose digits are grouped, or that has a decimal comma; None for other texts."""
    marks = re.findall(r"(?<=[0-9])[,.'_ ]+(?=[0-9])", text)
    digits = re.sub(r"(?<=[0-9])[,.'_ ]+(?=[0-9])", "", text)
    if not (marks and NUMBER.fullmatch(digits)):
        return None
    last = marks[-1]
    head, _, tail = text.rpartition(last)
    fraction = re.sub(r"[,.'_ ]", "", head) + f".{tail}"
    if marks == [","] and re.fullmatch(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}", text):
        return f"has a comma: write {fraction} if it divides the fraction, {digits} if it groups thousands"
    if last == "," and marks.count(last) == 1:
        return f"has a decimal comma; write {fraction}, and convert the whole column"
    if last == "." and marks.count(last) == 1:
        return f"groups its digits; write {fraction}"
    if not all(len(group) in {2, 3} for group in re.split(r"[,.' ]", text)[1:]):
        return None
    names = {",": "commas", ".": "points", "'": "quotes", "_": "underscores", " ": "spaces"}
    return f"groups its digits with {names[last[0]]}; write {digits}"
