"""How a text file is written: its encoding, the delimiter and the quotes of a CSV, whether its first line names the columns."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from finespun.data.cells import NUMBER

DELIMITERS = ",\t;|"
SAMPLE = 262_144  # bytes that are looked at
MOST_ROWS = 400
FITTING = 0.9  # share of the rows that have as many fields as most
REPLACED = "\N{REPLACEMENT CHARACTER}"  # what stands for a byte that cannot be decoded
LONG = 40  # characters; what is longer is rather a text than a name
NAME = re.compile(r"[^\W\d][\w .:/()#@?%-]*")  # of a column
MARKS = ((b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a CSV is written."""

    encoding: str
    delimiter: str = ","
    quoting: str = "auto"
    header: bool = True


def encoding_of(sample: bytes) -> str:
    """Returns the encoding of the beginning of a file: by its mark, or the first that it can be.

    UTF-8 is recognised for certain; of encodings with a byte a character, Cyrillic is known by its letters, others are cp1252.
    """
    marked = next((name for mark, name in MARKS if sample.startswith(mark)), None)
    if marked:
        return marked
    if sample[:4096].count(0) > len(sample[:4096]) // 50:
        return "utf-16-le" if sample[1:4096:2].count(0) > sample[:4096:2].count(0) else "utf-16-be"
    cut = next((cut for cut in range(1, min(4, len(sample) + 1)) if sample[-cut] >= 0xC0), 0)  # it may end inside a character
    read = sample[: len(sample) - cut].decode("utf-8", errors="replace")
    wrong = read.count(REPLACED) - sample.count(REPLACED.encode())  # less those that stand there
    if wrong <= sum(not each.isascii() for each in read) - wrong:
        return "utf-8"  # a byte that is wrong in it will be reported with its line
    high = sample.translate(None, bytes(range(128)))
    cyrillic = sum(each >= 0xC0 for each in high) / len(high)
    words = re.findall(rb"[\xc0-\xff]{3,}", sample)
    if cyrillic > 0.9 and sum(map(len, words)) > len(high) / 2:
        return "cp1251"
    undefined = {0x81, 0x8D, 0x8F, 0x90, 0x9D}
    return "latin-1" if undefined & set(high) else "cp1252"


def dialect_of(sample: bytes, *, columns: Sequence[str] = (), whole: bool = False) -> Dialect:
    """Returns how the file that begins so is written.

    Args:
        sample: the first bytes.
        columns: those that its header has: they decide between delimiters.
        whole: whether the sample is all of it.
    """
    encoding = encoding_of(sample)
    text = sample.decode(encoding, errors="replace").removeprefix("\ufeff")
    if not whole and "\n" in text:
        text = text[: text.rindex("\n") + 1]
    said = re.match(r'"?sep=(.)"?\r?\n', text, re.IGNORECASE)
    text = text[said.end() :] if said else text
    found = max((_fit(text, delimiter, columns) for delimiter in (said[1] if said else DELIMITERS)), key=lambda each: each[0])
    _, delimiter, quoting, rows = found
    return Dialect(encoding=encoding, delimiter=delimiter, quoting=quoting, header=bool(columns) or has_header(rows))


def _fit(text: str, delimiter: str, columns: Sequence[str]) -> tuple[tuple[float, ...], str, str, list[list[str]]]:
    """Returns how well a delimiter divides a text: whether the header has the columns, equal rows, how many fields."""
    best: tuple[tuple[float, ...], str, str, list[list[str]]] | None = None
    for quoting, style in (("auto", csv.QUOTE_MINIMAL), ("none", csv.QUOTE_NONE)):
        rows = _rows(text, delimiter, style)
        widths = Counter(len(row) for row in rows)
        width, count = max(widths.items(), key=lambda each: (each[1], each[0])) if widths else (0, 0)
        share = count / len(rows) if rows else 0.0
        named = float(bool(rows and columns) and {*columns} <= {*rows[0]})
        swallowed = sum("\n" in field and field.count(delimiter) >= width for row in rows for field in row) if width > 1 else 0
        score = (named, float(width > 1 and share >= FITTING and not swallowed), share * min(width, 4), -ord(delimiter) / 1e6)
        if best is None or (score > best[0] and score[1] > best[0][1]):
            best = (score, delimiter, quoting, rows)
    assert best is not None
    return best


def _rows(text: str, delimiter: str, quoting: int) -> list[list[str]]:
    found: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    try:
        for row in reader:
            found += [row] if row else []
            if len(found) >= MOST_ROWS:
                break
    except csv.Error:
        return found
    return found


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: short names, each once, none of them a value of its column."""
    if not rows:
        return True
    first, body = [cell.strip() for cell in rows[0]], rows[1:]
    while first and not first[-1]:
        first.pop()
    if len({*first}) < len(first) or any(len(cell) > LONG or NUMBER.fullmatch(cell) for cell in first):
        return False
    columns = [[row[place].strip() for row in body if place < len(row)] for place in range(len(first))]
    if any(cell and cell in column for cell, column in zip(first, columns, strict=True)):
        return False
    named = all(not cell or NAME.fullmatch(cell) for cell in first)
    return named and (not body or any(_unlike(*pair) for pair in zip(first, columns, strict=True)))


def _unlike(name: str, column: Sequence[str]) -> bool:
    """Whether a name is of another kind than the values below it: numbers, repeated values, texts that are longer."""
    given = [cell for cell in column if cell]
    if not given:
        return False
    numbers = sum(bool(NUMBER.fullmatch(cell)) for cell in given) / len(given)
    repeated = len({*given}) <= len(given) / 2
    words = sum(len(cell.split()) for cell in given) / len(given)
    return numbers > FITTING or repeated or words > 2 * len(name.split()) or len(given) < 3
